import { CellcamError } from '../errors';
import { invalidArgument } from '../options';

function requireMatching(scores: ArrayLike<number>, truth: ArrayLike<number>, field: ArrayLike<number>): void {
  for (const [name, values] of Object.entries({ truth, field })) {
    if (values.length === scores.length) continue;
    const message = `Expected as many values for ${name} as for scores (${scores.length}) but received ${values.length}`;
    throw new CellcamError('ERR_INVALID_ARG', message);
  }
  for (let i = 0; i < scores.length; i++) {
    if (truth[i] !== 0 && truth[i] !== 1) throw invalidArgument('0 or 1', `truth[${i}]`, truth[i]);
    if (!Number.isFinite(field[i])) throw invalidArgument('a finite number', `field[${i}]`, field[i]);
    if (typeof scores[i] !== 'number') throw invalidArgument('a number', `scores[${i}]`, scores[i]);
    if (Number.isNaN(scores[i])) {
      throw new CellcamError('ERR_TRAINING', `Expected a number for every score but received NaN for scores[${i}]`);
    }
  }
}

/** Cells by field, then by ascending score. */
function sortedCells(scores: ArrayLike<number>, field: ArrayLike<number>): Uint32Array {
  const order = Uint32Array.from({ length: scores.length }, (_, i) => i);
  const compare = (x: number, y: number) => (x < y ? -1 : x > y ? 1 : 0);
  return order.sort((a, b) => compare(field[a]!, field[b]!) || compare(scores[a]!, scores[b]!));
}

/**
 * How well scores tell the cells of one field apart: over all pairs of a positive and a negative cell of the same
 * field, the share in which the positive one scores higher; equal scores count a half. Scores that only say which
 * field holds a class stay at .5. For several classes give every pair of field and class a number of its own.
 * @param scores one a cell
 * @param truth 0 or 1 a cell
 * @param field number of the cell's field, any finite number
 * @returns `auc` from 0 to 1, NaN where there is no pair; `pairs`, how many were compared
 * @throws CellcamError ERR_INVALID_ARG; ERR_TRAINING for a score that is not a number
 */
export function withinFieldAuc(
  scores: ArrayLike<number>,
  truth: ArrayLike<number>,
  field: ArrayLike<number>,
): { auc: number; pairs: number } {
  requireMatching(scores, truth, field);
  const order = sortedCells(scores, field);
  let right = 0;
  let pairs = 0;
  for (let i = 0; i < order.length;) {
    const own = field[order[i]!]!;
    let below = 0;
    let positives = 0;
    while (i < order.length && field[order[i]!] === own) {
      const score = scores[order[i]!]!;
      let tied = 0;
      let tiedPositives = 0;
      for (; i < order.length && field[order[i]!] === own && scores[order[i]!] === score; i++) {
        if (truth[order[i]!] === 1) tiedPositives++;
        else tied++;
      }
      right += tiedPositives * (below + tied / 2);
      below += tied;
      positives += tiedPositives;
    }
    pairs += positives * below;
  }
  return { auc: right / pairs, pairs };
}
