import { Command, Option } from 'commander';
import { CellcamError } from '../errors';
import { predictCells, type PredictOptions } from '../inference/predict';
import type { Shard } from '../inference/prediction_journal';
import { CELL_FORMATS, mergePredictions, type CellFormat, type TablesResult } from '../inference/prediction_tables';
import {
  commonOptions,
  deviceOptions,
  homeOptions,
  numeric,
  segmenterOf,
  segmenterOptions,
  specOf,
  toShard,
  type SegmenterArguments,
} from './arguments';
import { Progress } from './progress';

interface PredictArguments extends SegmenterArguments, Omit<PredictOptions, 'segmenter' | 'spec'> {
  spec?: string;
  json?: boolean;
}

/** Says what there is, names what is missing. */
function report(progress: Progress, output: string, result: TablesResult): void {
  const { images, cells, failed, withoutCells, files } = result;
  progress.line(`${files.join(', ')}: ${cells} cells in ${images} fields, ${failed.length} refused`, {
    event: 'done',
    output,
    ...result,
  });
  for (const id of withoutCells) console.error(`no cells in ${id}`);
  for (const { id, reason } of failed) console.error(`refused ${id}: ${reason}`);
  if (failed.length > 0)
    throw new CellcamError(
      'ERR_INCOMPLETE',
      `${failed.length} of the fields could not be predicted; the others are there`,
    );
}

/** A launcher's variables share the work out as well. */
function shardOf(given: Shard | undefined): Shard | undefined {
  const { RANK, WORLD_SIZE } = process.env;
  if (given !== undefined || RANK === undefined || WORLD_SIZE === undefined) return given;
  return { index: Number(RANK) + 1, count: Number(WORLD_SIZE) };
}

async function run({ spec, json, segmenter, shard, ...o }: PredictArguments, signal: AbortSignal): Promise<void> {
  const progress = new Progress({ json });
  try {
    const result = await predictCells({
      ...o,
      shard: shardOf(shard),
      segmenter: segmenterOf({ ...o, segmenter, precision: 'fp32' }),
      spec: specOf(spec),
      signal,
      onProgress: ({ done, total, cells }) => progress.update('predict', done, total, 'fields', `${cells} cells`),
    });
    if (result.resumed > 0) console.error(`${result.resumed} fields were predicted by an earlier run`);
    report(progress, o.output, result);
  } finally {
    progress.end();
  }
}

const cellsOption = (): Option =>
  new Option('--cells <formats...>', 'tables of cells to write').choices([...CELL_FORMATS]).default(['csv']);

export function predictCommand(signal: AbortSignal): Command {
  const command = new Command('predict')
    .description('predict every cell of a folder of fields: submission.csv and tables of cells')
    .requiredOption('--images-folder <folder>', 'holds <id>_red.png, _green.png, _blue.png and _yellow.png')
    .requiredOption('--weights-files <files...>', 'an ensemble: weights of folds, backbones and seeds')
    .requiredOption('--output <folder>', 'where the tables go')
    .option('--cell-weights-files <files...>', 'of step 2 (default: the same)')
    .option('--backbone <name>', 'of weights whose path does not tell', 'seresnext50_32x4d')
    .addOption(
      new Option('--steps <steps>', '1: by activation maps; 2: each cell alone')
        .choices(['both', '1', '2'])
        .default('both'),
    )
    .addOption(
      new Option('--tta <views>', 'flips: also mirrored and turned, averaged')
        .choices(['none', 'flips'])
        .default('none'),
    )
    .addOption(
      new Option('--border <rule>', "cells that touch the field's edge").choices(['keep', 'drop']).default('keep'),
    )
    .addOption(numeric('--class-threshold <p>', 'classes up to this probability of the field are left out', 0.01))
    .addOption(numeric('--quantile <q>', "what stands for a map's height", 0.99))
    .addOption(numeric('--score-threshold <s>', 'a cell shows a class above this share of its probability', 0.02))
    .addOption(numeric('--max-classes <n>', 'classes that stay in a field', 18))
    .option('--masks <folder>', 'cell masks: <id>.png, .tif, .npy or .npz (default: segmented and kept)')
    .option('--mask-cache <folder>', 'where computed masks are kept (default: <home>/cache/masks)')
    .addOption(cellsOption())
    .option('--ids <ids...>', 'which fields (default: all)')
    .option('--file-pattern <name>', "names of the files (default: '{id}_{channel}.png'): grey PNG, TIFF or JPEG")
    .addOption(numeric('--image-size <pixels>', 'side of the fields', 512))
    .addOption(numeric('--crop-size <pixels>', 'side of the single cells (default: 384, at most --image-size)'))
    .addOption(numeric('--batch-size <n>', 'fields or cells at a time; a GPU is faster with more', 4))
    .addOption(
      new Option(
        '--shard <i/n>',
        'every n-th field, i from 1; then `cellcam merge` (default: by RANK and WORLD_SIZE)',
      ).argParser(toShard),
    );
  for (const option of [...segmenterOptions().slice(0, 3), ...homeOptions(), ...deviceOptions(), ...commonOptions()])
    command.addOption(option);
  return command.action((o: PredictArguments) => run(o, signal));
}

export function mergeCommand(): Command {
  return new Command('merge')
    .description('make the tables of a prediction from its shards')
    .argument('<output>', 'the folder that all shards were given')
    .addOption(cellsOption())
    .option('--json', 'one JSON object a line instead of text')
    .action(async (output: string, { cells, json }: { cells: CellFormat[]; json?: boolean }) =>
      report(new Progress({ json }), output, await mergePredictions(output, { cells })),
    );
}
