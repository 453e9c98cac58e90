import { Command, Option } from 'commander';
import { generateOof, type OofOptions } from '../inference/oof';
import {
  commonOptions,
  deviceOptions,
  homeOptions,
  numeric,
  segmenterOf,
  segmenterOptions,
  specOf,
  type SegmenterArguments,
} from './arguments';
import { Progress } from './progress';

type OofArguments = Omit<OofOptions, 'spec' | 'segmenter'> & SegmenterArguments & { spec?: string; json?: boolean };

async function run({ spec, json, segmenter, ...o }: OofArguments, signal: AbortSignal): Promise<void> {
  const progress = new Progress({ json });
  try {
    const result = await generateOof({
      ...o,
      segmenter: segmenterOf({ ...o, segmenter, precision: 'fp32' }),
      spec: specOf(spec),
      signal,
      onProgress: ({ done, total, cells }) => progress.update('oof', done, total, 'images', `${cells} cells`),
    });
    progress.line(`${result.path}: ${result.cells} cells of ${result.images} images`, { event: 'done', ...result });
    if (result.seen.length > 0) {
      console.error(
        `warning: the weights were trained on ${result.seen.length} of the images, such as ${result.seen[0]}`,
      );
    }
    for (const id of result.withoutCells) console.error(`no cells in ${id}: it has no row`);
  } finally {
    progress.end();
  }
}

export function oofCommand(signal: AbortSignal): Command {
  const command = new Command('oof')
    .description("predict every cell of a fold's validation images, or of a holdout table")
    .option('--labels-file <file>', 'table of labels, in the data home', 'train_cleaned_default_external.csv')
    .option('--metadata-file <file>', 'table ID,ImageHeight,ImageWidth', 'meta_cleaned_default_external.csv')
    .requiredOption('--fold <fold>', 'from 1; 0 predicts all images of the table by the average of all weights', Number)
    .requiredOption('--weights-files <files...>', "fold k's best weights; for fold 0 those of all folds")
    .option(
      '--masks <folder>',
      'cell masks: <id>.png, .tif, .npy or .npz, perhaps with _mask or _predictedmask behind the id (default: segmented and kept)',
    )
    .option('--mask-cache <folder>', 'where computed masks are kept (default: <home>/cache/masks)')
    .option('--oof-folder <folder>', 'where the tables go, in the home', 'oof')
    .option('--backbone <name>', 'one of those that `cellcam backbones` lists', 'seresnext50_32x4d')
    .addOption(new Option('--mtype <type>', 'kind of model').choices(['siamese', 'regular']).default('siamese'))
    .addOption(new Option('--factory <factory>', 'where images come from').choices(['HDF5', 'None']).default('HDF5'))
    .option('--images-folder <folder>', 'PNGs for --factory None (default: <train-home>/images)')
    .addOption(numeric('--seed <seed>', 'of the folds', 2020))
    .addOption(numeric('--folds <number>', 'folds', 4))
    .addOption(numeric('--batch-size <images>', 'images at a time', 32))
    .addOption(numeric('--image-size <pixels>', 'side of the stored images', 512))
    .addOption(
      numeric(
        '--crop-size <pixels>',
        "training's crop, to name the output for weights outside of models/ (default: 384)",
      ),
    );
  for (const option of [...segmenterOptions().slice(0, 3), ...homeOptions(), ...deviceOptions(), ...commonOptions()])
    command.addOption(option);
  return command.action((o: OofArguments) => run(o, signal));
}
