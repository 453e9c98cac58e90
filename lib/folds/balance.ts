import { CellcamError } from '../errors';
import { type NdArray, requireInteger, requireNdArray } from '../options';

/** How evenly folds share rows and classes. */
export interface FoldBalance {
  /** Rows of each fold, fold 1 first. */
  sizes: number[];
  /** Rows with each class: `counts[fold - 1][class]`. */
  counts: number[][];
}

/**
 * Counts rows and classes of each fold.
 * @param labels 0/1, shape (rows, classes)
 * @param fold fold of each row, from 1, as stratifiedFolds returns it
 * @param folds number of folds; default: the largest in `fold`
 * @throws CellcamError ERR_INVALID_ARG
 */
export function foldBalance(labels: NdArray<Uint8Array>, fold: ArrayLike<number>, folds?: number): FoldBalance {
  const [rows, classes] = requireNdArray(labels, 'labels', ['Uint8Array'], ['rows', 'classes']).shape as [
    number,
    number,
  ];
  if (fold.length !== rows) {
    throw new CellcamError('ERR_INVALID_ARG', `Expected ${rows} values for fold but received ${fold.length}`);
  }
  const last = requireInteger(folds ?? largestOf(fold), 'folds', 1);
  const sizes = new Array<number>(last).fill(0);
  const counts = sizes.map(() => new Array<number>(classes).fill(0));
  for (let row = 0; row < rows; row++) {
    const f = requireInteger(fold[row], `fold[${row}]`, 1, last) - 1;
    sizes[f]! += 1;
    const counted = counts[f]!;
    for (let c = 0; c < classes; c++) counted[c]! += labels.data[row * classes + c]!;
  }
  return { sizes, counts };
}

function largestOf(values: ArrayLike<number>): number {
  let largest = 1;
  for (let i = 0; i < values.length; i++) largest = Math.max(largest, values[i]!);
  return largest;
}
