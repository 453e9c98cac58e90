import { Command } from 'commander';
import { listWeights, readWeights, writeWeights } from '../data/weights/weights';
import { invalidArgument } from '../options';
import { alignColumns } from '../report/columns';

interface ConvertArguments {
  list?: boolean;
  wholeModule?: boolean;
  json?: boolean;
}

async function list(input: string, { wholeModule, json }: ConvertArguments): Promise<void> {
  const outline = await listWeights(input, { wholeModule });
  if (json) return console.log(JSON.stringify(outline, null, 2));
  console.log(alignColumns(outline.map(({ name, dtype, shape }) => [name, dtype, `(${shape.join(', ')})`])));
}

async function run(input: string, output: string | undefined, o: ConvertArguments): Promise<void> {
  if (o.list) return list(input, o);
  if (output === undefined) throw invalidArgument('an output file, or --list,', 'output', output);
  const weights = await readWeights(input, { wholeModule: o.wholeModule });
  await writeWeights(output, weights);
  const count = Object.keys(weights).length;
  console.log(o.json ? JSON.stringify({ event: 'done', output, tensors: count }) : `${output}: ${count} tensors`);
}

export function convertCommand(): Command {
  return new Command('convert')
    .description(
      'convert a weights file between .safetensors and the .pt or .pth of PyTorch; nothing in it is ever run',
    )
    .argument('<input>', 'weights file')
    .argument('[output]', 'weights file to write')
    .option('--list', 'print names, dtypes and shapes instead')
    .option('--whole-module', 'also take the tensors of a whole pickled module, without its code')
    .option('--json', 'as JSON')
    .action(run);
}
