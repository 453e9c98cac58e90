import { Command, Option } from 'commander';
import { evaluatePredictions, type EvaluateOptions, type Evaluation } from '../inference/evaluate';
import { commonOptions, numeric, specOf } from './arguments';
import { Progress } from './progress';

interface EvaluateArguments extends Omit<EvaluateOptions, 'spec'> {
  spec?: string;
  json?: boolean;
}

const score = (v: number | undefined): string => (v === undefined || Number.isNaN(v) ? '-' : v.toFixed(3));

/** The scores as a table, a line a class. */
export function evaluationText({ classes, cells, imageLevel, images }: Evaluation): string {
  const wide = Math.max(...classes.map((name) => name.length));
  const line = (name: string, ...values: string[]): string =>
    name.padEnd(wide) + values.map((v) => v.padStart(10)).join('');
  const rows = classes.map((name, c) =>
    line(
      name,
      ...(cells ? [score(cells.ap[c]), String(cells.instances[c])] : []),
      ...(imageLevel ? [score(imageLevel.ap[c])] : []),
    ),
  );
  const head = line(`${images} images`, ...(cells ? ['cell AP', 'cells'] : []), ...(imageLevel ? ['image AP'] : []));
  const mean = line('Mean', ...(cells ? [score(cells.mAP), ''] : []), ...(imageLevel ? [score(imageLevel.mAP)] : []));
  const f1 = imageLevel ? [`F1 of images at .5: ${score(imageLevel.f1)}`] : [];
  return [head, ...rows, mean, ...f1].join('\n');
}

/** How often the likeliest class of a cell was which, for true classes that occur. */
function confusionText({ classes, cells }: Evaluation): string {
  const lines = (cells?.confusion ?? []).flatMap((row, c) => {
    const total = row.reduce((sum, n) => sum + n, 0);
    const most = row.map((n, k) => ({ n, name: classes[k] ?? 'no such cell' })).filter(({ n }) => n > 0).sort((a, b) => b.n - a.n); // prettier-ignore
    return total === 0
      ? []
      : [
          `${classes[c]}: ${most
            .slice(0, 4)
            .map(({ n, name }) => `${name} ${n}`)
            .join(', ')}`,
        ];
  });
  return lines.length === 0 ? '' : ['', 'True cells by their likeliest predicted class:', ...lines].join('\n');
}

async function run({ spec, json, ...o }: EvaluateArguments, signal: AbortSignal): Promise<void> {
  const progress = new Progress({ json });
  try {
    const result = await evaluatePredictions({ ...o, spec: specOf(spec), signal });
    progress.line(evaluationText(result) + confusionText(result), { event: 'done', ...result });
    for (const id of result.withoutPredictions) console.error(`no predictions for ${id}: its cells count as missed`);
    if (result.withoutTruth.length > 0) console.error(`${result.withoutTruth.length} predicted images have no truth, such as ${result.withoutTruth[0]}`); // prettier-ignore
  } finally {
    progress.end();
  }
}

export function evaluateCommand(signal: AbortSignal): Command {
  const command = new Command('evaluate')
    .description('score predictions: cell mAP against true cells, F1 and mAP against image labels')
    .requiredOption('--predictions <file>', 'submission.csv, cells.csv or cells.jsonl')
    .option('--truth <file>', 'table of true cells: ID,cell_id,Label')
    .option('--truth-masks <folder>', "the true cells' masks")
    .option('--prediction-masks <folder>', 'masks that cells.csv was predicted with (default: --truth-masks)')
    .option('--labels-file <file>', 'table of image labels: ID,Label')
    .addOption(numeric('--iou <overlap>', 'from which a cell counts as found', 0.6))
    .addOption(
      new Option('--variant <variant>', 'overlap of masks or boxes; mask_strict: all classes count in every image')
        .choices(['mask', 'box', 'mask_strict'])
        .default('mask'),
    )
    .option('--output <file>', 'all scores, curves and the confusion of classes as JSON');
  for (const option of commonOptions()) command.addOption(option);
  return command.action((o: EvaluateArguments) => run(o, signal));
}
