import { stringify } from 'csv-stringify/sync';
import { writeDurably } from '../data/durable';
import type { EpochTally } from '../native';
import type { NdArray } from '../options';
import { meanAveragePrecision } from '../metrics/average_precision';
import { f1Samples } from '../metrics/f1';
import type { EpochMetrics, EpochRecord } from '../report/curves';

/** @param targets (n, classes) in the order of the tally's images */
export function epochMetrics(tally: EpochTally, targets: NdArray<Uint8Array>): EpochMetrics {
  const [loss, full, tiled, l1] = Array.from(tally.sums.data, (sum) => sum / tally.images) as [
    number,
    number,
    number,
    number,
  ];
  return {
    loss,
    full,
    tiled,
    l1,
    f1: f1Samples(tally.probabilities, targets),
    mAP: meanAveragePrecision(tally.probabilities, targets).mAP,
  };
}

/** Writes one part's figures, a line an epoch: epoch, lr and the metrics. */
export async function writeHistory(path: string, history: EpochRecord[], part: 'train' | 'valid'): Promise<void> {
  const rows = history.map(({ epoch, lr, ...parts }) => ({ epoch, lr, ...parts[part] }));
  await writeDurably(
    path,
    stringify(rows, { header: true, columns: ['epoch', 'lr', 'loss', 'full', 'tiled', 'l1', 'f1', 'mAP'] }),
  );
}
