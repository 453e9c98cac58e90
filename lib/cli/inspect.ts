import { Command } from 'commander';
import { inspectFiles } from '../data/inspect';
import { commonOptions, specOf } from './arguments';
import { inspectionText } from './inspect_text';
import { Progress } from './progress';

interface InspectArguments {
  against?: string;
  imagesFolder?: string;
  hash?: boolean;
  spec?: string;
  json?: boolean;
}

async function run(files: string[], o: InspectArguments, signal: AbortSignal): Promise<void> {
  const progress = new Progress({});
  const inspection = await inspectFiles(files, {
    against: o.against,
    imagesFolder: o.imagesFolder,
    hash: o.hash,
    spec: specOf(o.spec),
    signal,
    onProgress: ({ path, done, total }) => progress.update(path, done, total, 'images'),
  }).finally(() => progress.end());
  console.log(o.json ? JSON.stringify(inspection) : inspectionText(inspection));
}

export function inspectCommand(signal: AbortSignal): Command {
  const command = new Command('inspect')
    .description('say what HDF5 files of images and tables hold, and which IDs one has and another has not')
    .argument('<files...>', 'HDF5 files, or tables with a column ID (.csv, .csv.gz)')
    .option('--against <file>', 'compare the IDs of each file with this one, instead of with one another')
    .option('--images-folder <folder>', 'also compare them with the images of a folder')
    .option('--hash', 'also find images of an HDF5 file with the same pixels, which reads all of them');
  for (const option of commonOptions()) command.addOption(option);
  return command.action((files: string[], o: InspectArguments) => run(files, o, signal));
}
