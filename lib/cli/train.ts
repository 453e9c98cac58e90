import { Command, Option } from 'commander';
import { planTraining } from '../training/outline';
import type { TrainEvent, TrainOptions } from '../training/plan';
import { AUGMENTATION_LEVELS, type AugmentationLevel, type AugmentationOptions } from '../training/augmentation';
import { SAMPLERS } from '../training/sample_weights';
import { trainFolds } from '../training/train_folds';
import { outlineText } from './outline_text';
import { commonOptions, deviceOptions, homeOptions, numeric, orNothing, specOf, toRange } from './arguments';
import { Progress } from './progress';

type Draws = Omit<AugmentationOptions, 'level'>;
type TrainArguments = Omit<TrainOptions, 'spec' | 'augmentation'> &
  Draws & { augmentation: AugmentationLevel; spec?: string; json?: boolean; plan?: boolean };

function show(progress: Progress, event: TrainEvent): void {
  switch (event.kind) {
    case 'fold':
      return progress.line(
        `fold ${event.fold}: ${event.train} images to train on, ${event.valid} to validate on; ${event.folder}`,
        {
          event: 'fold',
          ...event,
        },
      );
    case 'step': {
      const { fold, epoch, epochs, part, progress: p } = event;
      return progress.update(
        `fold ${fold} epoch ${epoch}/${epochs} ${part}`,
        p.step,
        p.steps,
        'steps',
        `loss ${p.loss.toFixed(4)}`,
      );
    }
    case 'epoch': {
      const { epoch, lr, train, valid } = event.record;
      const figures = (m: typeof train): string =>
        `loss ${m.loss.toFixed(4)} F1 ${m.f1.toFixed(3)} mAP ${m.mAP.toFixed(3)}`;
      return progress.line(
        `fold ${event.fold} epoch ${epoch}/${event.epochs}: train ${figures(train)} | valid ${figures(valid)} | lr ${lr.toPrecision(2)}${event.best ? ' | best' : ''}`,
        { event: 'epoch', ...event },
      );
    }
    case 'done':
      return progress.line(
        `fold ${event.fold}: best epoch ${event.best.epoch}, loss ${event.best.loss.toFixed(4)}; ${event.weights}`,
        {
          event: 'done',
          ...event,
        },
      );
  }
}

async function run(given: TrainArguments, signal: AbortSignal): Promise<void> {
  const { spec, json, plan, augmentation: level, ...rest } = given;
  const { resizedCrop, channelDropout, mixup, cutmix, mixAlpha, ...o } = rest;
  const options: TrainOptions = {
    ...o,
    augmentation: { level, resizedCrop, channelDropout, mixup, cutmix, mixAlpha },
    additionalLabelsFile: orNothing(o.additionalLabelsFile),
    pretrainedStage: orNothing(o.pretrainedStage),
    pretrained: orNothing(o.pretrained),
    spec: specOf(spec),
    signal,
  };
  if (plan) {
    const outline = await planTraining(options);
    return console.log(json ? JSON.stringify(outline, null, 2) : outlineText(outline));
  }
  const progress = new Progress({ json });
  try {
    await trainFolds({ ...options, onEvent: (event) => show(progress, event) });
  } finally {
    progress.end();
  }
}

export function trainCommand(signal: AbortSignal): Command {
  const command = new Command('train')
    .description('train one model a fold on image-level labels')
    .option('--labels-file <file>', 'table of labels, in the data home', 'train_cleaned_default_external.csv')
    .option('--additional-labels-file <file>', 'a second table, split by itself', 'None')
    .addOption(new Option('--factory <factory>', 'where images come from').choices(['HDF5', 'None']).default('HDF5'))
    .option('--images-folder <folder>', 'PNGs for --factory None (default: <train-home>/images)')
    .addOption(new Option('--mtype <type>', 'kind of model').choices(['siamese', 'regular']).default('siamese'))
    .option('--backbone <name>', 'one of those that `cellcam backbones` lists', 'seresnext50_32x4d')
    .addOption(numeric('--gamma <weight>', 'weight of the distance between the maps', 0.5))
    .addOption(numeric('--lr <rate>', 'learning rate', 0.0003))
    .addOption(numeric('--seed <seed>', 'of folds, weights, draws and augmentation', 2020))
    .addOption(numeric('--batch-size <images>', 'images a step', 36))
    .addOption(numeric('--epochs <number>', 'epochs a fold', 48))
    .addOption(numeric('--workers <threads>', 'loader threads (default: 8, at most one a core)'))
    .addOption(numeric('--resume-fold <fold>', 'skip the folds below', 0))
    .addOption(numeric('--dropout <chance>', 'of a feature, before the classifier', 0))
    .option('--deterministic', 'the same bits from the same run also on CUDA')
    .option('--plan', 'print what would be run, without training')
    .option('--stage <name>', 'name of this stage', 'stage1')
    .option('--pretrained-stage <name>', "start from this stage's best weights", 'None')
    .option(
      '--pretrained <file>',
      'weights to start from: a file, a hub id such as timm/resnet18.a1_in1k, imagenet (see `cellcam backbones`), or none',
      'none',
    )
    .addOption(numeric('--folds <number>', 'folds', 4))
    .addOption(numeric('--image-size <pixels>', 'side of the stored images, a multiple of 64', 512))
    .addOption(
      numeric('--crop-size <pixels>', 'side of the random crop, a multiple of 64 (default: 384, at most the image)'),
    )
    .addOption(
      new Option('--augmentation <level>', 'full: all that the original draws; flips: crops, flips and turns; none')
        .choices(AUGMENTATION_LEVELS)
        .default('full'),
    )
    .addOption(new Option('--resized-crop <from,to>', 'a crop of this share of the area, resized').argParser(toRange))
    .addOption(numeric('--channel-dropout <chance>', 'that one channel becomes 0', 0))
    .addOption(numeric('--mixup <chance>', 'that an image is blended with its neighbour', 0))
    .addOption(numeric('--cutmix <chance>', 'that a part of its neighbour is pasted into an image', 0))
    .addOption(numeric('--mix-alpha <alpha>', 'of the Beta distribution of the shares of both', 1))
    .addOption(
      new Option('--sampler <name>', 'how often an image is drawn: by its classes, by their root, or each once')
        .choices(SAMPLERS)
        .default('balanced'),
    )
    .addOption(
      new Option('--schedule <name>', 'of the learning rate').choices(['plateau', 'cosine']).default('plateau'),
    );
  for (const option of [...homeOptions(), ...deviceOptions(), ...commonOptions()]) command.addOption(option);
  return command.action((o: TrainArguments) => run(o, signal));
}
