import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import { writeDurably } from '../data/durable';
import { findFile } from '../data/homes';
import { imageIndex, selectImages } from '../data/image_index';
import { selectRows } from '../data/labels';
import type { ImageIndex } from '../data/loader';
import { CellcamError } from '../errors';
import { findBackbone } from '../model/backbones';
import { pretrainedFile } from '../model/pretrained';
import { PuzzleCam } from '../model/puzzle_cam';
import { native } from '../native';
import { FoldRun } from './fold_run';
import { foldTables, splitFold, trainPlan, type FoldedTable, type TrainOptions, type TrainPlan } from './plan';
import { bestWeights, modelName, snapshotFiles, type SnapshotFiles } from './stages';

/** Every fold's weights of the stage to start from are there, before the first fold is trained. */
function checkStartingStage({ pretrainedStage, homes, folds, resumeFold }: TrainPlan, name: string): void {
  if (pretrainedStage === undefined) return;
  for (let fold = Math.max(1, resumeFold); fold <= folds; fold++) {
    findFile(bestWeights(snapshotFiles(homes.home, name, fold, pretrainedStage)), [], `weights of ${pretrainedStage}`);
  }
}

async function startModel(plan: TrainPlan, name: string, fold: number): Promise<PuzzleCam> {
  const from =
    plan.pretrainedStage === undefined
      ? plan.pretrained
      : bestWeights(snapshotFiles(plan.homes.home, name, fold, plan.pretrainedStage));
  return PuzzleCam.forSpec(plan.spec, {
    backbone: plan.backbone,
    device: plan.device,
    seed: plan.seed,
    dropout: plan.dropout,
    ...(from === undefined ? {} : { pretrained: from }),
  });
}

async function trainFold(
  plan: TrainPlan,
  folded: FoldedTable,
  images: ImageIndex,
  name: string,
  fold: number,
): Promise<SnapshotFiles> {
  const rows = splitFold(folded, fold);
  const [train, valid] = [selectRows(folded.table, rows.train), selectRows(folded.table, rows.valid)];
  const files = snapshotFiles(plan.homes.home, name, fold, plan.stage);
  plan.onEvent({ kind: 'fold', fold, train: train.ids.length, valid: valid.ids.length, folder: files.folder });
  const { backbone, mtype, dropout, stage, seed, lr, schedule, epochs, batch, gamma } = plan;
  const model = await startModel(plan, name, fold);
  const run = new FoldRun({
    settings: {
      fold,
      stage,
      backbone,
      mtype,
      dropout,
      seed,
      lr,
      schedule,
      epochs,
      batch,
      gamma,
      augmentation: plan.augmentation,
      sampler: plan.sampler,
      size: plan.imageSize,
      crop: plan.cropSize,
      precision: native((a) => a.resolve(model.device, plan.precision)).precision,
      images: [train.ids.length, valid.ids.length],
    },
    model,
    train,
    valid,
    index: selectImages(images, [...rows.train, ...rows.valid]),
    files,
    workers: plan.workers,
    signal: plan.signal,
    onStep: (part, epoch, progress) => plan.onEvent({ kind: 'step', fold, epoch, epochs, part, progress }),
    onEpoch: (record, best) => plan.onEvent({ kind: 'epoch', fold, epochs, record, best }),
  });
  try {
    await run.run();
    plan.onEvent({ kind: 'done', fold, best: run.best!, weights: files.best });
    return files;
  } finally {
    run.dispose();
    model.dispose();
  }
}

/** Writes which fold validates each image; refuses to change that under a run that has begun. */
async function writeFolds(plan: TrainPlan, name: string, { table, fold }: FoldedTable): Promise<void> {
  const { home } = plan.homes;
  const path = join(home, 'models', name, `folds_${plan.stage}.csv`);
  const rows = table.ids.map((id, row) => [id, table.ext[row], fold[row]]);
  const text = stringify([['ID', 'ext', 'fold'], ...rows]);
  const written = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  if (written === text) return;
  const folds = Array.from({ length: plan.folds }, (_, i) => snapshotFiles(home, name, i + 1, plan.stage));
  if (written !== undefined && folds.some(({ last }) => existsSync(last))) {
    throw new CellcamError(
      'ERR_TRAINING',
      `Expected the split of ${path} but ${table.path} with seed ${plan.seed} gives another: ` +
        'use the same table and options, another --stage, or remove the folder',
    );
  }
  mkdirSync(dirname(path), { recursive: true });
  await writeDurably(path, text);
}

/**
 * Trains one model a fold: stratifies the table, then for every fold trains on the other folds and validates on this one.
 * Finished folds are left as they are, an unfinished one goes on where its state was saved.
 * @returns for each fold trained, its files: best weights, state, histories, per-image OOF probabilities, curves
 * @throws CellcamError; the signal's reason after saving the state
 */
export async function trainFolds(options: TrainOptions): Promise<SnapshotFiles[]> {
  const plan = trainPlan(options);
  native((a) => a.setDeterministic(plan.deterministic));
  const folded = foldTables(plan);
  const name = modelName({ ...plan });
  const fetched = plan.pretrained && (await pretrainedFile(plan.pretrained, findBackbone(plan.backbone), plan.signal));
  const images = await imageIndex(folded.table, { ...plan, trainHome: plan.homes.trainHome, size: plan.imageSize });
  checkStartingStage(plan, name);
  await writeFolds(plan, name, folded);
  const done: SnapshotFiles[] = [];
  for (let fold = Math.max(1, plan.resumeFold); fold <= plan.folds; fold++)
    done.push(await trainFold({ ...plan, pretrained: fetched }, folded, images, name, fold));
  return done;
}
