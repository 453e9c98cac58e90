import { CellcamError } from '../errors';
import { requireNdArray, requireNumber, type NdArray } from '../options';

/** How found cells agree with true ones. */
export interface SegmentationScore {
  /** Cells of both that overlap with an IoU above the threshold; at .5 or more no cell can have two partners. */
  matched: number;
  found: number;
  truth: number;
  /** matched / (found + truth − matched); NaN where neither has a cell. */
  averagePrecision: number;
}

/** Pixels of each label, and of each pair that meets. */
function overlaps(
  found: Uint16Array,
  truth: Uint16Array,
): { found: number[]; truth: number[]; both: Map<number, number> } {
  const count = { found: [] as number[], truth: [] as number[], both: new Map<number, number>() };
  for (let i = 0; i < found.length; i++) {
    const [a, b] = [found[i]!, truth[i]!];
    if (a !== 0) count.found[a] = (count.found[a] ?? 0) + 1;
    if (b !== 0) count.truth[b] = (count.truth[b] ?? 0) + 1;
    if (a !== 0 && b !== 0) count.both.set(a * 65536 + b, (count.both.get(a * 65536 + b) ?? 0) + 1);
  }
  return count;
}

/**
 * Average precision of a segmentation at one IoU, as Stardist and Cellpose report it.
 * @param found,truth numbered cells of one size, 0 is background
 * @param iou .5 to 1; pairs must exceed it
 */
export function segmentationScore(
  found: NdArray<Uint16Array>,
  truth: NdArray<Uint16Array>,
  iou = 0.5,
): SegmentationScore {
  requireNdArray(found, 'found', ['Uint16Array'], ['height', 'width']);
  requireNdArray(truth, 'truth', ['Uint16Array'], ['height', 'width']);
  requireNumber(iou, 'iou', 0.5, 1);
  if (found.shape.join() !== truth.shape.join()) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected masks of one size but found is ${found.shape.join(' × ')} and truth ${truth.shape.join(' × ')}`,
    );
  }
  const count = overlaps(found.data, truth.data);
  let matched = 0;
  for (const [pair, both] of count.both) {
    const union = count.found[Math.floor(pair / 65536)]! + count.truth[pair % 65536]! - both;
    if (both / union > iou) matched++;
  }
  const [a, b] = [count.found, count.truth].map((areas) => areas.filter(() => true).length) as [number, number];
  return { matched, found: a, truth: b, averagePrecision: matched / (a + b - matched) };
}
