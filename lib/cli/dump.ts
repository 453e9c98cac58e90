import { setFlagsFromString } from 'node:v8';
import { Command, Option } from 'commander';
import { dumpImages } from '../data/dump';
import { CellcamError } from '../errors';
import { commonOptions, numeric, specOf } from './arguments';
import { Progress } from './progress';

interface DumpArguments {
  imagesFolder: string;
  hdf5Output: string;
  imageSize: number;
  size?: number;
  verify?: boolean;
  dtype: 'uint8' | 'float32';
  metaOutput?: string;
  workers?: number;
  filePattern?: string;
  spec?: string;
  json?: boolean;
}

async function run(o: DumpArguments, signal: AbortSignal): Promise<void> {
  // The pixels in work outweigh V8's heap, which would therefore be searched for garbage many times a second and hold none: they are
  // released by hand.
  setFlagsFromString('--heap-growing-percent=300');
  const progress = new Progress(o);
  const result = await dumpImages({
    imagesFolder: o.imagesFolder,
    hdf5Output: o.hdf5Output,
    imageSize: o.size ?? o.imageSize,
    verify: o.verify ?? false,
    dtype: o.dtype,
    ...(o.metaOutput === undefined ? {} : { metaOutput: o.metaOutput }),
    ...(o.filePattern === undefined ? {} : { filePattern: o.filePattern }),
    ...(o.workers === undefined ? {} : { workers: o.workers }),
    spec: specOf(o.spec),
    signal,
    onProgress: ({ part, done, total, failed }) =>
      progress.update(part, done, total, 'images', failed > 0 ? `(${failed} refused)` : ''),
  });
  const { written, skipped, failed, damaged = [] } = result;
  progress.line(
    `${written + skipped > 0 ? o.hdf5Output : 'nothing written'}: ${written} images dumped, ${skipped} were there already, ${failed.length} refused`,
    {
      event: 'done',
      output: o.hdf5Output,
      ...result,
    },
  );
  if (o.verify)
    progress.line(`verified: ${damaged.length === 0 ? 'every' : 'not every'} stored image reads as it was written`, {
      event: 'verified',
      damaged,
    });
  for (const { id, reason } of failed) console.error(`refused ${id}: ${reason}`);
  if (damaged.length > 0)
    throw new CellcamError(
      'ERR_INCOMPLETE',
      `${damaged.length} stored images (such as '${damaged[0]}') did not read as they were written; run the same command again to dump them anew`,
    );
  if (failed.length > 0)
    throw new CellcamError(
      'ERR_INCOMPLETE',
      written + skipped > 0
        ? `${failed.length} of the images could not be dumped; the others are there`
        : `none of the ${failed.length} images could be dumped`,
    );
}

export function dumpCommand(signal: AbortSignal): Command {
  const command = new Command('dump')
    .description('resize the images of a folder once and store them in an HDF5 file')
    .requiredOption('--images-folder <folder>', 'holds <id>_red.png, _green.png, _blue.png and _yellow.png')
    .requiredOption('--hdf5-output <file>', 'such as data/train/images_512.hdf5')
    .addOption(numeric('--image-size <pixels>', 'side of the stored images', 512))
    .addOption(numeric('--size <pixels>', 'the same as --image-size'))
    .addOption(new Option('--dtype <dtype>', 'what to store').choices(['uint8', 'float32']).default('uint8'))
    .option('--meta-output <file>', 'also write the table ID,ImageHeight,ImageWidth that oof joins')
    .option('--file-pattern <name>', "names of the files (default: '{id}_{channel}.png'): grey PNG, TIFF or JPEG")
    .option('--verify', 'afterwards read all that is stored and compare it with the hashes of what was written')
    .addOption(numeric('--workers <number>', 'images in flight (default: one more than cores)'));
  for (const option of commonOptions()) command.addOption(option);
  return command.action((o: DumpArguments) => run(o, signal));
}
