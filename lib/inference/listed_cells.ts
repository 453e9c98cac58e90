import type { ListedCell } from '../report/html';
import type { PredictedImage } from './prediction_journal';

/** The highest of what is offered, so many at most. */
class Best {
  #kept: { rank: number; cell: ListedCell }[] = [];

  constructor(private readonly most: number) {}

  offer(rank: number, cell: () => ListedCell): void {
    if (this.#kept.length >= this.most && rank <= this.#kept.at(-1)!.rank) return;
    const place = this.#kept.findIndex((kept) => kept.rank < rank);
    this.#kept.splice(place < 0 ? this.#kept.length : place, 0, { rank, cell: cell() });
    this.#kept.length = Math.min(this.#kept.length, this.most);
  }

  get cells(): ListedCell[] {
    return this.#kept.map(({ cell }) => cell);
  }
}

/** Gathers the cells worth a look from predictions that come image by image. */
export class CellLists {
  /** The most confident by class, so that one easy class does not fill the list. */
  readonly #confident: Best[];
  readonly #doubtful: Best;
  readonly #disagreements: Best;

  constructor(
    classes: number,
    private readonly most: number,
  ) {
    this.#confident = Array.from({ length: classes }, () => new Best(2));
    this.#doubtful = new Best(most);
    this.#disagreements = new Best(most);
  }

  /** @param labels the image's given labels, where there are any */
  add({ id, cells }: PredictedImage, labels: readonly number[] | undefined): void {
    for (const { cellId, probabilities } of cells) {
      const order = probabilities.map((_, c) => c).sort((a, b) => probabilities[b]! - probabilities[a]!);
      const [classId, other = classId] = order as [number, number?];
      const [p, q] = [probabilities[classId]!, probabilities[other]!];
      this.#confident[classId]!.offer(p, () => ({ id, cellId, classId, p }));
      this.#doubtful.offer(q - p, () => ({ id, cellId, classId, p, other, q }));
    }
    if (labels !== undefined && cells.length > 0) this.#disagree({ id, cells }, labels);
  }

  /** A label that no cell shows, or a class that a cell shows and no label tells. */
  #disagree({ id, cells }: Pick<PredictedImage, 'id' | 'cells'>, labels: readonly number[]): void {
    cells[0]!.probabilities.forEach((_, classId) => {
      const top = cells.reduce((a, b) => (b.probabilities[classId]! > a.probabilities[classId]! ? b : a));
      const p = top.probabilities[classId]!;
      const given = labels.includes(classId);
      this.#disagreements.offer(given ? 1 - p : p, () => ({ id, cellId: top.cellId, classId, p, given }));
    });
  }

  get lists(): { confident: ListedCell[]; doubtful: ListedCell[]; disagreements: ListedCell[] } {
    const confident = this.#confident.flatMap((best) => best.cells).sort((a, b) => b.p - a.p);
    return {
      confident: confident.slice(0, this.most),
      doubtful: this.#doubtful.cells,
      disagreements: this.#disagreements.cells,
    };
  }
}
