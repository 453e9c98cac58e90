import { alignColumns } from '../report/columns';
import type { FoldOutline, TrainingOutline } from '../training/outline';

function foldLine({ fold, train, valid, epochsDone, skipped, startsFrom, files }: FoldOutline, epochs: number): string {
  const state = skipped
    ? 'left out'
    : epochsDone >= epochs
      ? 'finished'
      : epochsDone > 0
        ? `goes on after epoch ${epochsDone}`
        : `starts from ${startsFrom ?? 'random weights'}`;
  return `fold ${fold}: ${train} images to train on, ${valid} to validate on; ${state}; ${files.folder}`;
}

/** Images of each class: in all, then for every fold those to train on and those to validate on. */
function balance({ classes, folds }: TrainingOutline): string {
  const header = ['class', 'images', ...folds.flatMap(({ fold }) => [`train ${fold}`, `valid ${fold}`])];
  const rows = classes.map((name, c) => {
    const counts = folds.flatMap(({ trainCounts, validCounts }) => [trainCounts[c]!, validCounts[c]!]);
    return [name, counts[0]! + counts[1]!, ...counts].map(String);
  });
  return alignColumns([header, ...rows]);
}

export function outlineText(o: TrainingOutline): string {
  const tables = [o.labelsFile, ...(o.additionalLabelsFile === undefined ? [] : [o.additionalLabelsFile])];
  return [
    `${o.model}, ${o.stage}: ${o.epochs} epochs of ${o.stepsPerEpoch} steps of ${o.batch} images`,
    `${o.device}, ${o.precision}; about ${(o.trainingBytes / 1024 ** 3).toFixed(1)} GB for a step on a GPU`,
    `${o.images} images of ${tables.join(' and ')}, read from ${o.sources.join(', ')}`,
    ...o.folds.map((fold) => foldLine(fold, o.epochs)),
    '',
    balance(o),
  ].join('\n');
}
