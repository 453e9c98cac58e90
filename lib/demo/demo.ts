import { mkdir, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { dumpImages } from '../data/dump';
import { CellcamError } from '../errors';
import { Hdf5Reader } from '../data/hdf5';
import { generateOof } from '../inference/oof';
import { Predictor } from '../inference/predictor';
import { PuzzleCam } from '../model/puzzle_cam';
import { requireInteger, requireString, type Device, type Precision } from '../options';
import type { TrainEvent, TrainOptions } from '../training/plan';
import { trainFolds } from '../training/train_folds';
import { DEMO_SPEC, generateFields, type DemoSet } from './fields';
import { formatScores } from './format_scores';
import { predictNewFields } from './new_fields';
import { drawOverlays } from './overlays';
import { readImages, readCells } from './tables';
import { chanceAp, scoreCells, scoreImages, spreadImageLabels, type ScoredCell, type ScoredImage } from './score';

export interface DemoOptions {
  folder: string;
  seed?: number;
  fields?: number;
  epochs?: number;
  folds?: number;
  device?: Device;
  precision?: Precision;
  signal?: AbortSignal;
  log: (line: string) => void;
  onTrain?: (event: TrainEvent) => void;
}

const SIZE = 192;
const BACKBONE = 'resnet18';
const SHOWN_PER_FOLD = 4;

interface Paths {
  folder: string;
  labels: string;
  meta: string;
  masks: string;
  hdf5: string;
}

function pathsOf(folder: string): Paths {
  return {
    folder,
    labels: join(folder, 'labels.csv'),
    meta: join(folder, 'meta.csv'),
    masks: join(folder, 'masks'),
    hdf5: join(folder, 'train', `images_${SIZE}.hdf5`),
  };
}

async function makeData(o: DemoOptions, paths: Paths): Promise<DemoSet> {
  o.log('1/5 drawing synthetic fields');
  const set = await generateFields({ folder: paths.folder, fields: o.fields ?? 150, size: SIZE, seed: o.seed ?? 1, signal: o.signal });
  o.log('2/5 dumping them to HDF5');
  const { failed } = await dumpImages({
    imagesFolder: join(paths.folder, 'images'),
    hdf5Output: paths.hdf5,
    imageSize: SIZE,
    spec: DEMO_SPEC,
    metaOutput: paths.meta,
    signal: o.signal,
  });
  if (failed.length > 0) throw new CellcamError('ERR_INCOMPLETE', `the demo could not dump ${failed[0]!.id}: ${failed[0]!.reason}`);
  return set;
}

function trainOptions(o: DemoOptions, paths: Paths): TrainOptions {
  return {
    home: paths.folder,
    dataHome: paths.folder,
    labelsFile: paths.labels,
    backbone: BACKBONE,
    spec: DEMO_SPEC,
    imageSize: SIZE,
    cropSize: SIZE,
    folds: requireInteger(o.folds ?? 2, 'folds', 2, 10),
    epochs: o.epochs ?? 24,
    batchSize: 8,
    augmentation: { level: 'flips' }, // the fields are too small for the original's distortions
    lr: 2e-3,
    schedule: 'cosine',
    seed: o.seed ?? 1,
    device: o.device,
    precision: o.precision,
    signal: o.signal,
    onEvent: o.onTrain,
  };
}

/** The cells of all folds, each predicted by weights that never saw its field. */
async function predictFolds(o: DemoOptions, paths: Paths, weights: string[], oofFolder: string): Promise<ScoredCell[]> {
  const cells: ScoredCell[] = [];
  for (const [i, file] of weights.entries()) {
    const { path } = await generateOof({
      home: paths.folder,
      dataHome: paths.folder,
      labelsFile: paths.labels,
      metadataFile: paths.meta,
      masks: paths.masks,
      backbone: BACKBONE,
      spec: DEMO_SPEC,
      imageSize: SIZE,
      fold: i + 1,
      folds: weights.length,
      seed: o.seed ?? 1,
      weightsFiles: [file],
      oofFolder,
      device: o.device,
      precision: o.precision,
      signal: o.signal,
    });
    cells.push(...readCells(path, DEMO_SPEC.classes.length));
  }
  return cells;
}

async function untrainedWeights(o: DemoOptions, folder: string): Promise<string> {
  const path = join(folder, 'untrained.safetensors');
  using model = await PuzzleCam.forSpec(DEMO_SPEC, { backbone: BACKBONE, seed: (o.seed ?? 1) + 1000, device: o.device });
  await model.saveWeights(path);
  return path;
}

/** Image-level probabilities of given weights for all fields. */
async function imageScores(o: DemoOptions, paths: Paths, set: DemoSet, weights: string): Promise<ScoredImage[]> {
  const reader = await Hdf5Reader.open(paths.hdf5);
  using predictor = await Predictor.create({ backbone: BACKBONE, weights: [weights], spec: DEMO_SPEC, device: o.device });
  const scored: ScoredImage[] = [];
  try {
    for (const { id } of set.fields) {
      const data = new Uint8Array(SIZE * SIZE * DEMO_SPEC.channels.length);
      reader.readInto(id, data);
      const { logits } = await predictor.predict({ data, shape: [1, SIZE, SIZE, DEMO_SPEC.channels.length] });
      scored.push({ id, probabilities: logits.data });
    }
  } finally {
    reader.close();
  }
  return scored;
}

function table(set: DemoSet, trained: ScoredCell[], untrained: ScoredCell[], images: Record<'trained' | 'untrained', ScoredImage[]>): string {
  const classes = DEMO_SPEC.classes.length;
  return formatScores({
    classes: DEMO_SPEC.classes,
    trained: scoreCells(classes, set.cells, trained),
    untrained: scoreCells(classes, set.cells, untrained),
    spread: scoreCells(classes, set.cells, spreadImageLabels(classes, set.fields, set.cells)),
    chance: chanceAp(classes, set.cells),
    images: { trained: scoreImages(classes, set.fields, images.trained), untrained: scoreImages(classes, set.fields, images.untrained) },
  });
}

/**
 * The whole job on synthetic fields whose cells are known: draws them, dumps, trains a small network on every fold, predicts
 * the cells of each fold by the weights that did not see it, and scores them against the truth and against untrained weights. Then new
 * fields are segmented, predicted in both steps and scored, and a report is written.
 * Writes everything, with pictures, into `folder`, whose earlier contents of the same names are replaced.
 * @returns the table of scores
 */
export async function runDemo(o: DemoOptions): Promise<string> {
  const paths = pathsOf(requireString(o.folder, 'folder'));
  for (const name of ['images', 'masks', 'train', 'models', 'oof', 'oof_untrained', 'pictures', 'new', 'predictions', 'cache']) {
    await rm(join(paths.folder, name), { recursive: true, force: true });
  }
  await mkdir(join(paths.folder, 'train'), { recursive: true });
  const set = await makeData(o, paths);
  o.log(`3/5 training ${BACKBONE} on every fold`);
  const folds = await trainFolds(trainOptions(o, paths));
  o.log('4/5 predicting the cells of each fold by the weights that never saw it');
  const weights = folds.map((files) => files.best);
  const trained = await predictFolds(o, paths, weights, 'oof');
  const plain = await untrainedWeights(o, paths.folder);
  const untrained = await predictFolds(o, paths, weights.map(() => plain), 'oof_untrained');
  const perFold = folds.map((files) => readImages(files.oof));
  const scores = table(set, trained, untrained, { trained: perFold.flat(), untrained: await imageScores(o, paths, set, plain) });
  o.log(`\n${scores}\n`);
  const shown = perFold.flatMap((rows, i) => rows.slice(0, SHOWN_PER_FOLD).map(({ id }) => ({ id, weights: weights[i]! })));
  await drawOverlays({ folder: paths.folder, set, size: SIZE, shown, cells: trained, backbone: BACKBONE, device: o.device });
  o.log(`pictures of ${shown.length} fields: ${join(paths.folder, 'pictures')}`);
  o.log(`out-of-fold cells: ${join(paths.folder, 'oof')}`);
  o.log('5/5 predicting new fields: segmentation, both steps, scores, report');
  const lines = await predictNewFields({
    folder: paths.folder,
    weights,
    model: dirname(dirname(dirname(dirname(weights[0]!)))),
    labelsFile: paths.labels,
    backbone: BACKBONE,
    size: SIZE,
    seed: o.seed ?? 1,
    device: o.device,
    precision: o.precision,
    signal: o.signal,
  });
  for (const line of lines) o.log(line);
  return scores;
}
