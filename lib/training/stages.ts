import { existsSync } from 'node:fs';
import { join, resolve, sep } from 'node:path';
import type { DatasetSpec } from '../data/dataset_spec';

/** What the name of a model's folder is made of. */
export interface ModelName {
  mtype: string;
  backbone: string;
  imageSize: number;
  cropSize: number;
  folds: number;
  /** 'fp32' if asked for; mixed precision is called fp16 whatever the machine makes of it, as the Python original does. */
  precision: string;
  spec: DatasetSpec;
}

const VERSION = 'v3.0';

/** A fold's best weights: ours, or the model_best.pt that the Python original left in the same place. */
export function bestWeights({ folder, best }: SnapshotFiles): string {
  const original = join(folder, 'model_best.pt');
  return !existsSync(best) && existsSync(original) ? original : best;
}

/** Such as siamese_seresnext50_32x4d_512_384_RGBY_fp16_CV4_v3.0. */
export function modelName(o: ModelName): string {
  const channels = o.spec.channels.map((c) => c.name.charAt(0).toUpperCase()).join('');
  const precision = o.precision === 'fp32' ? 'fp32' : 'fp16';
  return `${o.mtype}_${o.backbone}_${o.imageSize}_${o.cropSize}_${channels}_${precision}_CV${o.folds}_${VERSION}`;
}

/**
 * What the path of a weights file `…/models/<name>/fold<k>/<stage>/snapshots/<file>` tells: the name that training gave, the fold whose
 * images it never saw, and the table of the training's split; undefined for files elsewhere.
 */
export function trainedFold(weights: string): { model: string; fold: number; table: string } | undefined {
  const [models, model, fold, stage] = resolve(weights).split(sep).slice(-6, -2);
  const number = /^fold(\d+)$/.exec(fold ?? '')?.[1];
  if (number === undefined || models !== 'models' || model === undefined) return undefined;
  return { model, fold: Number(number), table: join(resolve(weights, '..', '..', '..', '..'), `folds_${stage}.csv`) };
}

/** The backbone in the name of the model's folder that a weights file lies in; undefined for files elsewhere. */
export function backboneOf(weights: string): string | undefined {
  return /^[a-z]+_(.+)_\d+_\d+_[A-Z]+_fp\d+_CV\d+_/.exec(trainedFold(weights)?.model ?? '')?.[1];
}

/** Files of one fold of one stage. */
export interface SnapshotFiles {
  folder: string;
  best: string;
  last: string;
  oof: string;
  train: string;
  valid: string;
  curves: string;
}

export function snapshotFiles(home: string, model: string, fold: number, stage: string): SnapshotFiles {
  const folder = join(home, 'models', model, `fold${fold}`, stage, 'snapshots');
  return {
    folder,
    best: join(folder, 'model_best.safetensors'),
    last: join(folder, 'last.safetensors'),
    oof: join(folder, `oof_${fold}.csv`),
    train: join(folder, 'train.csv'),
    valid: join(folder, 'valid.csv'),
    curves: join(folder, 'train.png'),
  };
}
