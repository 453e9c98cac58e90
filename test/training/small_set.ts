import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { dumpImages, type DatasetSpec, type TrainOptions } from '../../dist';
import { generateFields, type DemoSet } from '../../dist/demo/fields';

export const SIZE = 64;

export interface SmallSet {
  folder: string;
  set: DemoSet;
  /** For `trainFolds`: resnet18 on two folds, on the CPU in float32, so that every run comes to the same bits. */
  options: TrainOptions & { folds: number; epochs: number; spec: DatasetSpec };
  /** The same for `cellcam train`. */
  args: string[];
}

/** Synthetic fields, drawn and dumped into a data home: images/, masks/, labels.csv, meta.csv, spec.json, train/images_64.hdf5. */
export async function makeSmallSet(folder: string, fields: number): Promise<SmallSet> {
  const set = await generateFields({ folder, fields, size: SIZE, seed: 3 });
  await dumpImages({
    imagesFolder: set.imagesFolder,
    hdf5Output: join(folder, 'train', `images_${SIZE}.hdf5`),
    imageSize: SIZE,
    spec: set.spec,
    metaOutput: join(folder, 'meta.csv'),
  });
  writeFileSync(join(folder, 'spec.json'), JSON.stringify(set.spec));
  const options = {
    home: folder,
    dataHome: folder,
    labelsFile: 'labels.csv',
    backbone: 'resnet18',
    spec: set.spec,
    imageSize: SIZE,
    cropSize: SIZE,
    folds: 2,
    epochs: 2,
    batchSize: 4,
    workers: 2,
    seed: 7,
    device: 'cpu',
    precision: 'fp32',
  } as const;
  const named = { ...options, spec: join(folder, 'spec.json') };
  const args = Object.entries(named).flatMap(([name, value]) => [
    `--${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`,
    String(value),
  ]);
  return { folder, set, options, args };
}
