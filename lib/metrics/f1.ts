import { CellcamError } from '../errors';
import { invalidArgument, type NdArray, requireNdArray, requireNumber } from '../options';

/** The one-hot row's F1: 2 TP / (2 TP + FP + FN); 0 where there is neither a label nor a prediction. */
function rowF1(
  probabilities: Float32Array,
  targets: Uint8Array,
  first: number,
  classes: number,
  threshold: number,
): number {
  let hits = 0;
  let either = 0;
  for (let i = first; i < first + classes; i++) {
    const predicted = probabilities[i]! > threshold ? 1 : 0;
    hits += predicted & targets[i]!;
    either += predicted + targets[i]!;
  }
  return either === 0 ? 0 : (2 * hits) / either;
}

/**
 * Checks probabilities and 0/1 targets of one shape (rows, classes).
 * @returns rows and classes
 * @throws CellcamError ERR_INVALID_ARG; ERR_TRAINING for a probability that is not a number
 */
export function requireScores(probabilities: NdArray<Float32Array>, targets: NdArray<Uint8Array>): [number, number] {
  const [rows, classes] = requireNdArray(probabilities, 'probabilities', ['Float32Array'], ['rows', 'classes']).shape;
  requireNdArray(targets, 'targets', ['Uint8Array'], [rows!, classes!]);
  if (rows === 0 || classes === 0)
    throw invalidArgument('at least one row and class', 'probabilities.shape', `${rows}, ${classes}`);
  const wrong = targets.data.findIndex((v) => v > 1);
  if (wrong >= 0) throw invalidArgument('0 or 1', `targets.data[${wrong}]`, targets.data[wrong]);
  const missing = probabilities.data.findIndex(Number.isNaN);
  if (missing >= 0) {
    const where = `row ${Math.floor(missing / classes!)}, class ${missing % classes!}`;
    throw new CellcamError('ERR_TRAINING', `Expected a number for every probability but received NaN in ${where}`);
  }
  return [rows!, classes!];
}

/**
 * F1 of each row, averaged over rows; a row without label and prediction counts 0.
 * @param probabilities shape (rows, classes)
 * @param targets 0/1, same shape
 * @param threshold predicted where the probability is strictly above it, compared in float32
 * @returns 0 to 1
 * @throws CellcamError ERR_INVALID_ARG; ERR_TRAINING for a probability that is not a number
 */
export function f1Samples(probabilities: NdArray<Float32Array>, targets: NdArray<Uint8Array>, threshold = 0.5): number {
  const [rows, classes] = requireScores(probabilities, targets);
  const limit = Math.fround(requireNumber(threshold, 'threshold', 0, 1));
  let sum = 0;
  for (let row = 0; row < rows; row++) sum += rowF1(probabilities.data, targets.data, row * classes, classes, limit);
  return sum / rows;
}
