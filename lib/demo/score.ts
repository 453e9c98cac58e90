import { CellcamError } from '../errors';
import { averagePrecision } from '../metrics/average_precision';
import { withinFieldAuc } from '../metrics/localisation';

/** A true cell: the field's id, its number in the mask and its class indices. */
export interface TrueCell {
  id: string;
  cellId: number;
  labels: readonly number[];
}

/** A predicted cell; `probabilities[c]` is the confidence in class c. */
export interface ScoredCell {
  id: string;
  cellId: number;
  probabilities: ArrayLike<number>;
}

export interface TrueImage {
  id: string;
  labels: readonly number[];
}

export interface ScoredImage {
  id: string;
  probabilities: ArrayLike<number>;
}

/** How well cells are told apart. Per class, NaN where a class has no positive (AP) or no mixed field (AUC). */
export interface CellScores {
  ap: number[];
  /** Mean over the classes that have an AP. */
  meanAp: number;
  /** AUC over pairs of cells of the same field: .5 if the place in the field means nothing. */
  auc: number[];
  /** Over the pairs of all classes together. */
  overallAuc: number;
}

/** Mean of the finite values, NaN if there is none. */
export function meanOf(values: readonly number[]): number {
  const finite = values.filter(Number.isFinite);
  return finite.reduce((sum, value) => sum + value, 0) / finite.length;
}

function oneHot(labels: readonly number[], index: number): number {
  return labels.includes(index) ? 1 : 0;
}

function matchRows<T>(wanted: string[], rows: readonly T[], keyOf: (row: T) => string): T[] {
  const byKey = new Map(rows.map((row) => [keyOf(row), row]));
  return wanted.map((key) => {
    const row = byKey.get(key);
    if (row === undefined) throw new CellcamError('ERR_TABLE', `Expected a prediction for ${key} but found none`);
    return row;
  });
}

function cellKey({ id, cellId }: { id: string; cellId: number }): string {
  return `cell ${cellId} of ${id}`;
}

/**
 * Scores predicted cells against true ones.
 * @param classes how many classes there are
 * @param predicted one row for each true cell, in any order; rows of other cells are left out
 * @throws CellcamError ERR_TABLE if a true cell has no prediction
 */
export function scoreCells(classes: number, truth: readonly TrueCell[], predicted: readonly ScoredCell[]): CellScores {
  const rows = matchRows(truth.map(cellKey), predicted, cellKey);
  const fieldNumbers = new Map([...new Set(truth.map((cell) => cell.id))].map((id, i) => [id, i]));
  const field = Int32Array.from(truth, (cell) => fieldNumbers.get(cell.id) as number);
  const perClass = Array.from({ length: classes }, (_, c) => {
    const scores = Float64Array.from(rows, (row) => row.probabilities[c] as number);
    const positive = Uint8Array.from(truth, (cell) => oneHot(cell.labels, c));
    const ap = positive.includes(1) ? averagePrecision(scores, positive) : NaN;
    const { auc, pairs } = withinFieldAuc(scores, positive, field);
    return { ap, auc: pairs > 0 ? auc : NaN, pairs };
  });
  const compared = perClass.filter(({ pairs }) => pairs > 0);
  const pairs = compared.reduce((sum, one) => sum + one.pairs, 0);
  const ap = perClass.map((one) => one.ap);
  return {
    ap,
    meanAp: meanOf(ap),
    auc: perClass.map((one) => one.auc),
    overallAuc: compared.reduce((sum, one) => sum + one.auc * one.pairs, 0) / pairs,
  };
}

/**
 * Mean average precision of image-level probabilities over the classes that occur.
 * @throws CellcamError ERR_TABLE if an image has no prediction
 */
export function scoreImages(classes: number, truth: readonly TrueImage[], predicted: readonly ScoredImage[]): number {
  const rows = matchRows(
    truth.map(({ id }) => id),
    predicted,
    ({ id }) => id,
  );
  const aps = Array.from({ length: classes }, (_, c) => {
    const positive = Uint8Array.from(truth, ({ labels }) => oneHot(labels, c));
    const scores = Float64Array.from(rows, (row) => row.probabilities[c] as number);
    return positive.includes(1) ? averagePrecision(scores, positive) : NaN;
  });
  return meanOf(aps);
}

/** Share of the cells that have each class: the AP of guessing. */
export function chanceAp(classes: number, truth: readonly TrueCell[]): number[] {
  return Array.from({ length: classes }, (_, c) => truth.filter(({ labels }) => labels.includes(c)).length / truth.length);
}

/** What perfect image labels say about cells: every cell gets all labels of its field. */
export function spreadImageLabels(classes: number, images: readonly TrueImage[], cells: readonly TrueCell[]): ScoredCell[] {
  const labelsOf = new Map(images.map(({ id, labels }) => [id, labels]));
  return cells.map(({ id, cellId }) => ({
    id,
    cellId,
    probabilities: Array.from({ length: classes }, (_, c) => oneHot(labelsOf.get(id) ?? [], c)),
  }));
}
