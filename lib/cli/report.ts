import { Command, Option } from 'commander';
import { writeReport, type ReportOptions } from '../inference/report';
import { commonOptions, numeric, specOf } from './arguments';

interface ReportArguments extends Omit<ReportOptions, 'spec'> {
  spec?: string;
  json?: boolean;
}

async function run({ spec, json, ...o }: ReportArguments): Promise<void> {
  const result = await writeReport({ ...o, spec: specOf(spec) });
  console.log(json ? JSON.stringify(result) : `${result.path}: ${result.sections.join(', ')}; ${result.fields} fields`);
}

export function reportCommand(): Command {
  const command = new Command('report')
    .description('one HTML file with training curves, scores and a gallery of cells; needs no network to open')
    .requiredOption('--output <file>', 'such as report.html')
    .option('--title <text>', 'heading of the page')
    .option('--model <folder>', 'models/<name> of a training: curves of all folds, balance of folds')
    .option('--predictions <folder>', 'the --output of cellcam predict: gallery and lists of cells')
    .option('--images-folder <folder>', 'the fields that were predicted')
    .option('--evaluation <file>', 'the --output of cellcam evaluate')
    .option('--labels-file <file>', 'table of image labels of the predicted fields: ID,Label')
    .option('--model-labels-file <file>', 'the table that the model was trained on (default: --labels-file)')
    .option('--weights-files <files...>', 'for activation maps in the gallery')
    .option('--backbone <name>', 'of weights whose path does not tell', 'seresnext50_32x4d')
    .addOption(numeric('--fields <number>', 'fields in the gallery', 12))
    .addOption(numeric('--image-size <pixels>', 'side at which fields are shown', 512))
    .option('--file-pattern <name>', "names of the files (default: '{id}_{channel}.png')")
    .addOption(new Option('--device <device>', 'auto, cpu, cuda or cuda:N').default('auto'));
  for (const option of commonOptions()) command.addOption(option);
  return command.action((o: ReportArguments) => run(o));
}
