import { alignColumns } from '../report/columns';
import { meanOf, type CellScores } from './score';

/** All figures of a demo run. */
export interface DemoScores {
  classes: readonly string[];
  /** Cells predicted by the trained weights, by untrained ones, and by spreading perfect image labels over all cells. */
  trained: CellScores;
  untrained: CellScores;
  spread: CellScores;
  /** AP of guessing, per class. */
  chance: readonly number[];
  /** Mean AP of the image-level probabilities. */
  images: { trained: number; untrained: number };
}

type Row = [name: string, ...values: (number | string)[]];

function cellText(value: number | string): string {
  if (typeof value === 'string') return value;
  return Number.isFinite(value) ? value.toFixed(2) : '-';
}

function tableOf(rows: Row[]): string {
  return alignColumns(rows.map((row) => row.map(cellText)));
}

/**
 * Plain text: the AP of cells per class, trained, untrained and by chance, with a mean line; below it what shows that
 * cells are told apart and not only fields.
 */
export function formatScores({ classes, trained, untrained, spread, chance, images }: DemoScores): string {
  const perClass = classes.map((name, c): Row => [
    name,
    trained.ap[c] ?? NaN,
    untrained.ap[c] ?? NaN,
    chance[c] ?? NaN,
  ]);
  const cells = tableOf([
    ['Average precision of cells', 'trained', 'untrained', 'chance'],
    ...perClass,
    ['Mean', trained.meanAp, untrained.meanAp, meanOf(chance)],
  ]);
  const summary = tableOf([
    ['', 'trained', 'untrained', 'perfect image labels on every cell'],
    ['Mean AP of cells', trained.meanAp, untrained.meanAp, spread.meanAp],
    ['AUC of cells within a field', trained.overallAuc, untrained.overallAuc, spread.overallAuc],
    ['Mean AP of images', images.trained, images.untrained, 1],
  ]);
  return `${cells}\n\n${summary}`;
}
