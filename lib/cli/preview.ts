import { Command, Option } from 'commander';
import { AUGMENTATION_LEVELS, type AugmentationLevel } from '../training/augmentation';
import { previewAugmentation, type PreviewOptions } from '../training/preview';
import { commonOptions, numeric, specOf, toRange } from './arguments';

interface PreviewArguments extends Omit<PreviewOptions, 'source' | 'ids' | 'augmentation' | 'spec'> {
  ids?: string[];
  augmentation: AugmentationLevel;
  resizedCrop?: [number, number];
  channelDropout?: number;
  spec?: string;
  json?: boolean;
}

async function run(source: string, given: PreviewArguments): Promise<void> {
  const { spec, json, augmentation: level, resizedCrop, channelDropout, ...o } = given;
  const preview = await previewAugmentation({
    ...o,
    source,
    spec: specOf(spec),
    augmentation: { level, resizedCrop, channelDropout },
  });
  const crops = preview.images.reduce((n, { draws }) => n + draws.length, 0);
  console.log(
    json ? JSON.stringify(preview) : `${o.output}: ${preview.images.length} images, ${crops} augmented crops`,
  );
}

export function previewCommand(): Command {
  const command = new Command('preview')
    .description('draw crops of some images as training would see them, with their operations, in one PNG')
    .argument('<source>', 'HDF5 file of images, or folder of their files')
    .requiredOption('--output <file>', 'the PNG to write')
    .option('--ids <ids...>', 'which images (default: the first ones)')
    .addOption(numeric('--images <number>', 'how many images', 4))
    .addOption(numeric('--draws <number>', 'crops an image', 4))
    .addOption(numeric('--seed <seed>', 'of the draws', 0))
    .addOption(numeric('--image-size <pixels>', 'side to which images of a folder are resized', 512))
    .addOption(numeric('--crop-size <pixels>', 'side of the crops (default: 384, at most the image)'))
    .addOption(new Option('--augmentation <level>', 'what is drawn').choices([...AUGMENTATION_LEVELS]).default('full'))
    .addOption(new Option('--resized-crop <from,to>', 'crop a share of the area instead').argParser(toRange))
    .addOption(numeric('--channel-dropout <chance>', 'that one channel becomes 0'))
    .addOption(new Option('--device <device>', 'auto, cpu, cuda or cuda:N').default('auto'));
  for (const option of commonOptions()) command.addOption(option);
  return command.action((source: string, o: PreviewArguments) => run(source, o));
}
