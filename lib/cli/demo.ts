import { resolve } from 'node:path';
import { Command } from 'commander';
import { runDemo } from '../demo/demo';
import type { Device, Precision } from '../options';
import { deviceOptions, numeric } from './arguments';
import { Progress } from './progress';

interface DemoArguments {
  folder: string;
  seed: number;
  fields: number;
  epochs: number;
  device: Device;
  precision: Precision;
}

async function run(o: DemoArguments, signal: AbortSignal): Promise<void> {
  const progress = new Progress({});
  const started = Date.now();
  try {
    await runDemo({
      ...o,
      folder: resolve(o.folder),
      signal,
      log: (line) => progress.line(line, {}),
      onTrain: (event) => {
        if (event.kind !== 'epoch') return;
        const { fold, epochs, record } = event;
        progress.update(`fold ${fold}`, record.epoch, epochs, 'epochs', `mAP ${record.valid.mAP.toFixed(2)}`);
      },
    });
  } finally {
    progress.end();
  }
  console.log(`done in ${Math.round((Date.now() - started) / 1000)} s`);
}

export function demoCommand(signal: AbortSignal): Command {
  const command = new Command('demo')
    .description('the whole job in minutes on synthetic fields whose cells are known')
    .option('--folder <folder>', 'where everything goes', 'demo')
    .addOption(numeric('--seed <seed>', 'of fields and training', 1))
    .addOption(numeric('--fields <number>', 'fields', 150))
    .addOption(numeric('--epochs <number>', 'epochs a fold', 24));
  for (const option of deviceOptions()) command.addOption(option);
  return command.action((o: DemoArguments) => run(o, signal));
}
