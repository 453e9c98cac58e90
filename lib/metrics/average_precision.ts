import { CellcamError } from '../errors';
import { invalidArgument, type NdArray } from '../options';
import { requireScores } from './f1';

function requireMatching(scores: ArrayLike<number>, truth: ArrayLike<number>): void {
  if (scores.length !== truth.length) {
    const message = `Expected as many values for truth as for scores (${scores.length}) but received ${truth.length}`;
    throw new CellcamError('ERR_INVALID_ARG', message);
  }
  for (let i = 0; i < scores.length; i++) {
    if (truth[i] !== 0 && truth[i] !== 1) throw invalidArgument('0 or 1', `truth[${i}]`, truth[i]);
    if (typeof scores[i] !== 'number') throw invalidArgument('a number', `scores[${i}]`, scores[i]);
    if (Number.isNaN(scores[i])) {
      throw new CellcamError('ERR_TRAINING', `Expected a number for every score but received NaN for scores[${i}]`);
    }
  }
}

/** Both lists ascending: sorting plain numbers is many times faster than sorting rows by a comparison. */
function areaUnderSteps(all: Float64Array, positive: Float64Array): number {
  let area = 0;
  let i = all.length;
  let found = 0;
  while (found < positive.length) {
    const threshold = positive[positive.length - 1 - found]!;
    const before = found;
    while (found < positive.length && positive[positive.length - 1 - found] === threshold) found++;
    while (i > 0 && all[i - 1]! >= threshold) i--;
    area += ((found - before) / positive.length) * (found / (all.length - i));
  }
  return area;
}

/**
 * Average precision of one class: precision at each distinct score, weighted by the recall gained there; no interpolation.
 * @param scores one a row; equal scores count as one threshold
 * @param truth 0 or 1 a row
 * @returns 0 to 1; 0 for a class without positives
 * @throws CellcamError ERR_INVALID_ARG; ERR_TRAINING for a score that is not a number
 */
export function averagePrecision(scores: ArrayLike<number>, truth: ArrayLike<number>): number {
  requireMatching(scores, truth);
  const all = Float64Array.from(scores).sort();
  const positive = Float64Array.from(scores)
    .filter((_, i) => truth[i] === 1)
    .sort();
  return areaUnderSteps(all, positive);
}

/**
 * Average precision of every class and their plain mean; classes without positives count 0.
 * @param probabilities shape (rows, classes)
 * @param targets 0/1, same shape
 * @throws CellcamError ERR_INVALID_ARG; ERR_TRAINING for a probability that is not a number
 */
export function meanAveragePrecision(
  probabilities: NdArray<Float32Array>,
  targets: NdArray<Uint8Array>,
): { mAP: number; ap: number[] } {
  const [rows, classes] = requireScores(probabilities, targets);
  const ap = Array.from({ length: classes }, (_, c) => {
    const scores = Float64Array.from({ length: rows }, (_, row) => probabilities.data[row * classes + c]!);
    const truth = Uint8Array.from({ length: rows }, (_, row) => targets.data[row * classes + c]!);
    return averagePrecision(scores, truth);
  });
  return { mAP: ap.reduce((sum, value) => sum + value, 0) / classes, ap };
}
