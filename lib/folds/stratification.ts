import { CellcamError } from '../errors';
import { type NdArray, requireInteger, requireNdArray } from '../options';
import { RandomState } from './random_state';

/** Checks a 0/1 label matrix of shape (rows, classes). */
function requireLabels(value: unknown): NdArray<Uint8Array> {
  const labels = requireNdArray(value, 'labels', ['Uint8Array'], ['rows', 'classes']);
  const [, classes] = labels.shape as [number, number];
  const wrong = labels.data.findIndex((v) => v > 1);
  if (classes < 2) {
    throw new CellcamError('ERR_INVALID_ARG', `Expected at least 2 classes for labels but received ${classes}`);
  }
  if (wrong >= 0) {
    const where = `row ${Math.floor(wrong / classes)}, class ${wrong % classes}`;
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected 0 or 1 in labels but received ${labels.data[wrong]} in ${where}`,
    );
  }
  return labels;
}

/** The state of one run. Rows are named by their place p in the shuffled order, as the draws depend on that order. */
class FoldAssignment {
  readonly order: Int32Array;
  /** 0-based fold of every place; -1 while it has none. */
  readonly fold: Int32Array;
  private readonly random: RandomState;
  private readonly classes: number;
  /** Rows left with each class. */
  private readonly left: Int32Array;
  /** Ascending places with each class; a class is worked off once, so all lists together are walked once. */
  private readonly places: Int32Array[];
  /** Rows that each fold still wants; may fall below zero. */
  private readonly want: Float64Array;
  /** The same of each class: (folds, classes). */
  private readonly wantClass: Float64Array;

  constructor(
    private readonly labels: NdArray<Uint8Array>,
    private readonly folds: number,
    seed: number,
  ) {
    const [rows, classes] = labels.shape as [number, number];
    this.random = new RandomState(seed);
    this.order = this.random.permutation(rows);
    this.fold = new Int32Array(rows).fill(-1);
    this.classes = classes;
    this.places = this.listPlaces();
    this.left = Int32Array.from(this.places, (list) => list.length);
    this.want = new Float64Array(folds).fill((1 / folds) * rows);
    this.wantClass = Float64Array.from({ length: folds * classes }, (_, i) => (1 / folds) * this.left[i % classes]!);
  }

  run(): void {
    for (let label = this.nextLabel(); label >= 0; label = this.nextLabel()) {
      for (const place of this.places[label]!) {
        if (this.fold[place] === -1) this.assign(place, this.pick(this.wantingFolds(label)));
      }
    }
    for (let place = 0; place < this.fold.length; place++) {
      if (this.fold[place] === -1) this.assign(place, this.pick(largest(this.want, allFolds(this.folds))));
    }
  }

  private listPlaces(): Int32Array[] {
    const { data } = this.labels;
    return Array.from({ length: this.classes }, (_, c) => {
      const has = (row: number) => data[row * this.classes + c] === 1;
      const list = new Int32Array(this.order.length);
      let count = 0;
      for (let p = 0; p < list.length; p++) if (has(this.order[p]!)) list[count++] = p;
      return list.slice(0, count);
    });
  }

  /** The rarest class that is left, or -1. */
  private nextLabel(): number {
    const present = [...this.left.keys()].filter((c) => this.left[c]! > 0);
    if (present.length === 0) return -1;
    const fewest = Math.min(...present.map((c) => this.left[c]!));
    return this.pick(present.filter((c) => this.left[c] === fewest));
  }

  private wantingFolds(label: number): number[] {
    const byClass = Float64Array.from({ length: this.folds }, (_, f) => this.wantClass[f * this.classes + label]!);
    const wanting = largest(byClass, allFolds(this.folds));
    return wanting.length > 1 ? largest(this.want, wanting) : wanting;
  }

  /** One of the candidates; choosing from a single one draws nothing. */
  private pick(candidates: number[]): number {
    return candidates[this.random.choice(candidates.length)]!;
  }

  private assign(place: number, fold: number): void {
    this.fold[place] = fold;
    this.want[fold]! -= 1;
    const first = this.order[place]! * this.classes;
    for (let c = 0; c < this.classes; c++) {
      if (this.labels.data[first + c] === 0) continue;
      this.wantClass[fold * this.classes + c]! -= 1;
      this.left[c]! -= 1;
    }
  }
}

function allFolds(folds: number): number[] {
  return Array.from({ length: folds }, (_, f) => f);
}

/** Those of the folds whose value is the largest, compared exactly. */
function largest(values: Float64Array, folds: number[]): number[] {
  let best = -Infinity;
  for (const f of folds) if (values[f]! > best) best = values[f]!;
  return folds.filter((f) => values[f] === best);
}

/**
 * Splits rows into folds so that every class is spread evenly: iterative stratification of multi-label data
 * (Sechidis, Tsoumakas and Vlahavas 2011), fold for fold as `iterstrat`'s `MultilabelStratifiedKFold` with shuffling.
 * @param labels 0/1, shape (rows, classes), at least two classes
 * @param o.folds 2 to the number of rows
 * @param o.seed integer from 0 to 2^32 - 1; the same seed gives the same folds
 * @returns for every row the fold, counted from 1, that validates on it
 * @throws CellcamError ERR_INVALID_ARG
 */
export function stratifiedFolds(labels: NdArray<Uint8Array>, o: { folds: number; seed: number }): Int32Array {
  const checked = requireLabels(labels);
  const folds = requireInteger(o?.folds, 'folds', 2, checked.shape[0]);
  const assignment = new FoldAssignment(checked, folds, requireInteger(o.seed, 'seed', 0, 0xffffffff));
  assignment.run();
  const result = new Int32Array(assignment.order.length);
  assignment.order.forEach((row, place) => (result[row] = assignment.fold[place]! + 1));
  return result;
}
