import { existsSync } from 'node:fs';
import { imageIndex } from '../data/image_index';
import { foldBalance } from '../folds/balance';
import { trainingMemory } from '../model/backbones';
import { native } from '../native';
import { foldTables, splitFold, trainPlan, type TrainOptions } from './plan';
import { readStateNotes } from './snapshots';
import { bestWeights, modelName, snapshotFiles, type SnapshotFiles } from './stages';

export interface FoldOutline {
  fold: number;
  /** Images to train on and to validate on. */
  train: number;
  valid: number;
  /** Images of each class in either part. */
  trainCounts: number[];
  validCounts: number[];
  /** Epochs done by earlier runs. */
  epochsDone: number;
  /** Left out by `resumeFold`. */
  skipped: boolean;
  /** The weights that it starts from: a file, or undefined for random ones. */
  startsFrom: string | undefined;
  files: SnapshotFiles;
}

/** What `trainFolds` would do with the same options. */
export interface TrainingOutline {
  model: string;
  stage: string;
  labelsFile: string;
  additionalLabelsFile: string | undefined;
  /** Where images are read from. */
  sources: string[];
  images: number;
  classes: string[];
  device: string;
  precision: string;
  epochs: number;
  batch: number;
  stepsPerEpoch: number;
  /** Estimated bytes of a training step on a GPU, by `trainingMemory`. */
  trainingBytes: number;
  folds: FoldOutline[];
}

async function epochsDone({ last }: SnapshotFiles): Promise<number> {
  return existsSync(last) ? Number((await readStateNotes(last))['epoch']) : 0;
}

/** Checks everything that `trainFolds` checks before its first step, and tells what it would do, without training. */
export async function planTraining(options: TrainOptions): Promise<TrainingOutline> {
  const plan = trainPlan(options);
  const folded = foldTables(plan);
  const name = modelName(plan);
  const { home, trainHome } = plan.homes;
  const index = await imageIndex(folded.table, { ...plan, trainHome, size: plan.imageSize });
  const valid = foldBalance(folded.table.labels, folded.fold, plan.folds);
  const total = plan.spec.classes.map((_, c) => valid.counts.reduce((sum, counts) => sum + counts[c]!, 0));
  const folds: FoldOutline[] = [];
  for (let fold = 1; fold <= plan.folds; fold++) {
    const rows = splitFold(folded, fold);
    const files = snapshotFiles(home, name, fold, plan.stage);
    const before = plan.pretrainedStage && bestWeights(snapshotFiles(home, name, fold, plan.pretrainedStage));
    const validCounts = valid.counts[fold - 1]!;
    folds.push({
      fold,
      train: rows.train.length,
      valid: rows.valid.length,
      trainCounts: total.map((count, c) => count - validCounts[c]!),
      validCounts,
      epochsDone: await epochsDone(files),
      skipped: fold < plan.resumeFold,
      startsFrom: before ?? plan.pretrained,
      files,
    });
  }
  const { trainingBytes } = await trainingMemory(plan.backbone, { batch: plan.batch, size: plan.cropSize });
  const { device, precision } = native((a) => a.resolve(plan.device, plan.precision));
  return {
    model: name,
    stage: plan.stage,
    labelsFile: plan.labelsFile,
    additionalLabelsFile: plan.additionalLabelsFile,
    sources: index.sources.map((source) => (source.kind === 'hdf5' ? source.path : source.folder)),
    images: folded.table.ids.length,
    classes: plan.spec.classes,
    device,
    precision,
    epochs: plan.epochs,
    batch: plan.batch,
    stepsPerEpoch: Math.ceil(folds[0]!.train / plan.batch),
    trainingBytes,
    folds,
  };
}
