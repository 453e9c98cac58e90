import { Command } from 'commander';
import { listBackbones, trainingMemory, type BackboneInfo, type TrainingMemory } from '../model/backbones';
import { numeric } from './arguments';
import { alignColumns } from '../report/columns';

interface BackbonesArguments {
  batchSize: number;
  cropSize: number;
  json?: boolean;
}

function millions(count: number): string {
  return `${(count / 1e6).toFixed(1)} M`;
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GB`;
}

function row(info: BackboneInfo & TrainingMemory): string[] {
  const { name, parameters, outChannels, outputStride, trainingBytes, pretrained } = info;
  return [name, millions(parameters), String(outChannels), String(outputStride), gigabytes(trainingBytes), pretrained];
}

async function run(o: BackbonesArguments): Promise<void> {
  const list: (BackboneInfo & TrainingMemory)[] = [];
  for (const info of listBackbones()) {
    list.push({ ...info, ...(await trainingMemory(info.name, { batch: o.batchSize, size: o.cropSize })) });
  }
  if (o.json) return console.log(JSON.stringify(list, null, 2));
  const memory = `training, batch ${o.batchSize} of ${o.cropSize}²`;
  console.log(
    alignColumns([['backbone', 'parameters', 'channels', 'stride', memory, 'ImageNet weights'], ...list.map(row)]),
  );
}

export function backbonesCommand(): Command {
  return new Command('backbones')
    .description(
      'list the backbones: parameters, output channels and stride, estimated memory of a training step on a GPU',
    )
    .addOption(numeric('--batch-size <images>', 'images a step', 36))
    .addOption(numeric('--crop-size <pixels>', 'side of the images', 384))
    .option('--json', 'as JSON')
    .action((o: BackbonesArguments) => run(o));
}
