import { Command, Option } from 'commander';
import { type MergedInput, mergeLabels } from '../data/merge_labels';
import { commonOptions, orNothing, specOf } from './arguments';

interface LabelsArguments {
  output: string;
  trainCsv?: string;
  external?: string[];
  holdout?: string;
  skipUnlabelled?: boolean;
  spec?: string;
  json?: boolean;
}

/** `train.csv: 98 of 100 rows; 2 held out`; what did not happen is not told. */
function inputLine({ path, rows, kept, unlabelled, inTrainSet, repeated, heldOut, inEarlier }: MergedInput): string {
  const left: [number, string][] = [
    [unlabelled, 'without a label'],
    [inTrainSet, 'marked in_trainset'],
    [repeated, 'of an ID there before'],
    [heldOut, 'held out'],
    [inEarlier, 'in an earlier table'],
  ];
  const told = left.filter(([count]) => count > 0).map(([count, why]) => `${count} ${why}`);
  return `${path}: ${kept} of ${rows} rows${told.length > 0 ? `; left out: ${told.join(', ')}` : ''}`;
}

function run(o: LabelsArguments): void {
  const result = mergeLabels({
    output: o.output,
    trainCsv: orNothing(o.trainCsv),
    external: o.external,
    holdout: orNothing(o.holdout),
    skipUnlabelled: o.skipUnlabelled,
    spec: specOf(o.spec),
  });
  if (o.json) return console.log(JSON.stringify({ event: 'done', ...result }));
  console.log([...result.inputs.map(inputLine), `${result.output}: ${result.images} images`].join('\n'));
}

export function labelsCommand(): Command {
  const command = new Command('labels')
    .description("merge Kaggle's train.csv and tables of public images into one table of labels to train on")
    .requiredOption('--output <file>', 'table to write: ID, Label, ext and a 0/1 column a class')
    .option('--train-csv <file>', "Kaggle's train.csv, or any table of labels; ext is kept, default where absent")
    .addOption(new Option('--external <files...>', 'tables of public images, such as kaggle_2021.tsv; ext is external'))
    .option('--holdout <file>', 'table whose IDs are left out')
    .option('--skip-unlabelled', 'leave out rows without a label instead of refusing their table');
  for (const option of commonOptions()) command.addOption(option);
  return command.action(run);
}
