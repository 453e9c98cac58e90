import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parse } from 'csv-parse/sync';
import sharp from 'sharp';
import { makeCam } from '../cells/cam_intersection';
import { readFieldImage } from '../cells/field_image';
import { resizeLabels } from '../cells/mask_formats';
import { cellOutlines, outlinePath } from '../cells/outlines';
import { decodeMask } from '../cells/run_lengths';
import { checkFilePattern, datasetSpec, HPA, type DatasetSpec } from '../data/dataset_spec';
import { writeDurably } from '../data/durable';
import { readLabels } from '../data/labels';
import { CellcamError, messageOf } from '../errors';
import { foldBalance } from '../folds/balance';
import { invalidArgument, requireInteger, requireString, type Device, type NdArray } from '../options';
import { brightened, tintOf } from '../report/composite';
import type { EpochRecord } from '../report/curves';
import { reportHtml, type ReportCell, type ReportData, type ReportField } from '../report/html';
import { backboneOf } from '../training/stages';
import { VERSION } from '../version';
import { CellLists } from './listed_cells';
import type { PredictedImage } from './prediction_journal';
import { predictionsOf } from './prediction_tables';
import { Predictor } from './predictor';

export interface ReportOptions {
  /** The HTML file. */
  output: string;
  title?: string;
  /** Folder of a trained model, `<home>/models/<name>`: curves of all folds and stages, and the balance of its folds. */
  model?: string;
  /** Folder that `predictCells` wrote: gallery and lists of cells. With `imagesFolder`. */
  predictions?: string;
  imagesFolder?: string;
  /** Scores that `evaluatePredictions` wrote. */
  evaluation?: string;
  /** Table of image labels of the predicted fields: disagreements with given labels. */
  labelsFile?: string;
  /** Table that the model was trained on, for the balance of its folds. Default: `labelsFile`. */
  modelLabelsFile?: string;
  /** For activation maps in the gallery. */
  weightsFiles?: readonly string[];
  /** Of weights whose path does not tell. */
  backbone?: string;
  /** In the gallery; default 12. */
  fields?: number;
  /** Side at which fields are seen by the network and shown; default 512. */
  imageSize?: number;
  filePattern?: string;
  device?: Device;
  spec?: DatasetSpec;
}

export interface ReportResult {
  path: string;
  /** Sections that there was something to show for. */
  sections: string[];
  fields: number;
}

const LIST = 10;
const JPEG_QUALITY = 82;

type Numbers = Record<string, string>;

function readCsv(path: string): Numbers[] {
  try {
    return parse(readFileSync(path, 'utf8'), { columns: true });
  } catch (error) {
    throw new CellcamError('ERR_TABLE', `Expected a table in ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** A fold's history as training wrote it. */
function readHistory(folder: string): EpochRecord[] {
  const [train, valid] = ['train.csv', 'valid.csv'].map((name) => readCsv(join(folder, name))) as [
    Numbers[],
    Numbers[],
  ];
  const metrics = (row: Numbers | undefined) => {
    const of = (key: string): number => Number(row?.[key] ?? NaN);
    return { loss: of('loss'), full: of('full'), tiled: of('tiled'), l1: of('l1'), f1: of('f1'), mAP: of('mAP') };
  };
  return train.map((row, i) => ({
    epoch: Number(row['epoch']),
    lr: Number(row['lr']),
    train: metrics(row),
    valid: metrics(valid[i]),
  }));
}

function readTraining(model: string): ReportData['training'] {
  if (!existsSync(model)) throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected the folder of a model in ${model}`);
  const runs = readdirSync(model)
    .filter((name) => /^fold\d+$/.test(name))
    .flatMap(
      (name) =>
      readdirSync(join(model, name)).map((stage) => ({ fold: Number(name.slice(4)), stage, folder: join(model, name, stage, 'snapshots') })), // prettier-ignore
    )
    .filter(({ folder }) => existsSync(join(folder, 'train.csv')));
  if (runs.length === 0)
    throw new CellcamError('ERR_FILE_NOT_FOUND', `Expected folds with train.csv in ${model} but found none`);
  runs.sort((a, b) => a.stage.localeCompare(b.stage) || a.fold - b.fold);
  return runs.map(({ fold, stage, folder }) => ({ fold, stage, epochs: readHistory(folder) }));
}

type Labels = Map<string, number[]>;

function readImageLabels(path: string, spec: DatasetSpec): Labels {
  const { ids, labels } = readLabels(path, { spec });
  const classes = spec.classes.length;
  const of = (row: number): number[] =>
    spec.classes.flatMap((_, c) => (labels.data[row * classes + c] === 1 ? [c] : []));
  return new Map(ids.map((id, row) => [id, of(row)]));
}

/** Classes by fold, of the last stage's split. */
function readFolds(model: string, labels: Labels | undefined, classes: number): ReportData['folds'] {
  const [table] = readdirSync(model).filter((name) => /^folds_.*\.csv$/.test(name)).sort().reverse(); // prettier-ignore
  if (table === undefined || labels === undefined) return undefined;
  const rows = readCsv(join(model, table)).filter((row) => labels.has(row['ID']!));
  if (rows.length === 0) return undefined;
  const data = new Uint8Array(rows.length * classes);
  rows.forEach((row, i) => labels.get(row['ID']!)!.forEach((c) => (data[i * classes + c] = 1)));
  return foldBalance({ data, shape: [rows.length, classes] }, rows.map((row) => Number(row['fold']))); // prettier-ignore
}

/** Outlines of a field's cells, at the size of the picture. */
function outlineCells({ cells, width, height }: PredictedImage, size: number): ReportCell[] {
  const map: NdArray<Uint16Array> = { data: new Uint16Array(size * size), shape: [size, size] };
  cells.forEach(({ mask }, i) => {
    const { data, shape } = decodeMask(mask, [height, width]);
    const small = resizeLabels({ data: Uint16Array.from(data), shape }, [size, size]);
    small.data.forEach((v, k) => {
      if (v !== 0) map.data[k] = i + 1;
    });
  });
  const paths = new Map(cellOutlines(map).map((outline) => [outline.cellId, outlinePath(outline, 1)]));
  return cells.map(({ cellId, probabilities, step1, step2 }, i) => ({
    cellId,
    path: paths.get(i + 1) ?? '',
    probabilities,
    ...(step1 && step2 ? { step1, step2 } : {}),
  }));
}

async function greyUri(pixels: Uint8Array, size: number): Promise<string> {
  const jpeg = await sharp(pixels, { raw: { width: size, height: size, channels: 1 } }).jpeg({ quality: JPEG_QUALITY }).toBuffer(); // prettier-ignore
  return `data:image/jpeg;base64,${jpeg.toString('base64')}`;
}

async function camsOf(predictor: Predictor, pixels: Uint8Array, size: number): Promise<ReportField['cams']> {
  const { maps } = await predictor.predict({ data: pixels, shape: [1, size, size, pixels.length / (size * size)] });
  const [, classes, h, w] = maps.shape as [number, number, number, number];
  const cams = makeCam({ data: maps.data, shape: [classes, h, w] });
  return { h, w, data: Buffer.from(Uint8Array.from(cams.data, (v) => Math.round(255 * v))).toString('base64') };
}

interface Gallery {
  imagesFolder: string;
  size: number;
  spec: DatasetSpec;
  labels: Labels | undefined;
  predictor: Predictor | undefined;
}

async function fieldOf(
  image: PredictedImage,
  { imagesFolder, size, spec, labels, predictor }: Gallery,
): Promise<ReportField> {
  const { pixels } = await readFieldImage(imagesFolder, image.id, size, spec);
  const channels: string[] = [];
  for (let c = 0; c < spec.channels.length; c++)
    channels.push(await greyUri(brightened(pixels, c, spec.channels.length), size));
  return {
    id: image.id,
    channels,
    cells: outlineCells(image, size),
    ...(predictor ? { cams: await camsOf(predictor, pixels, size) } : {}),
    ...(labels?.has(image.id) ? { labels: labels.get(image.id)! } : {}),
  };
}

/** Fields of the lists first, each list in turn, then the first ones of all. */
function fieldsToShow(lists: ReportData['lists'], first: string[], most: number): Set<string> {
  const shown = new Set<string>();
  const all = [lists.disagreements, lists.confident, lists.doubtful];
  for (let i = 0; i < LIST; i++) for (const list of all) if (list[i] && shown.size < most) shown.add(list[i]!.id);
  for (const id of first) if (shown.size < most) shown.add(id);
  return shown;
}

async function galleryOf(
  folder: string,
  gallery: Gallery,
  most: number,
): Promise<Pick<ReportData, 'fields' | 'lists'>> {
  const lists = new CellLists(gallery.spec.classes.length, LIST);
  const first: string[] = [];
  for await (const entry of predictionsOf(folder)) {
    if ('refused' in entry) continue;
    lists.add(entry, gallery.labels?.get(entry.id));
    if (first.length < most) first.push(entry.id);
  }
  const shown = fieldsToShow(lists.lists, first, most);
  const fields: ReportField[] = [];
  for await (const entry of predictionsOf(folder)) {
    if (!('refused' in entry) && shown.has(entry.id)) fields.push(await fieldOf(entry, gallery));
  }
  return { fields, lists: lists.lists };
}

async function predictorOf(o: ReportOptions, spec: DatasetSpec): Promise<Predictor | undefined> {
  if (o.weightsFiles === undefined || o.weightsFiles.length === 0) return undefined;
  const backbone = o.backbone ?? 'seresnext50_32x4d';
  const weights = o.weightsFiles.map((file) => ({ file, backbone: backboneOf(file) ?? backbone }));
  return Predictor.create({ backbone, weights, device: o.device, spec });
}

function readEvaluation(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CellcamError('ERR_TABLE', `Expected the scores that cellcam evaluate wrote in ${path}: ${messageOf(error)}`, { cause: error }); // prettier-ignore
  }
}

/**
 * Writes one HTML file that needs no other and no network: training curves, balance of folds, scores, a gallery of fields with channels,
 * outlines and activation maps, and lists of cells worth a look. What is not given is left out.
 * @throws CellcamError ERR_INVALID_ARG if nothing is given, ERR_FILE_NOT_FOUND, ERR_TABLE, ERR_WRITE
 */
export async function writeReport(o: ReportOptions): Promise<ReportResult> {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const path = resolve(requireString(o.output, 'output'));
  const given = datasetSpec(o.spec ?? HPA);
  const spec = o.filePattern === undefined ? given : { ...given, filePattern: checkFilePattern(o.filePattern) };
  const size = requireInteger(o.imageSize ?? 512, 'imageSize', 64, 2048);
  const most = requireInteger(o.fields ?? 12, 'fields', 1, 1000);
  if ((o.model ?? o.predictions ?? o.evaluation) === undefined)
    throw new CellcamError('ERR_INVALID_ARG', 'Expected something to report: model, predictions or evaluation');
  if (o.predictions !== undefined && o.imagesFolder === undefined)
    throw new CellcamError(
      'ERR_INVALID_ARG',
      'Expected imagesFolder, the fields that were predicted, with predictions',
    );
  const labels = o.labelsFile === undefined ? undefined : readImageLabels(o.labelsFile, spec);
  const modelLabels = o.modelLabelsFile === undefined ? labels : readImageLabels(o.modelLabelsFile, spec);
  const data: ReportData = {
    title: o.title ?? 'Cells and their locations',
    subtitle: `cellcam ${VERSION}`,
    classes: spec.classes,
    channels: spec.channels.map(({ name }, c) => ({ name, tint: tintOf(name, c) })),
    size,
    training: o.model === undefined ? [] : readTraining(o.model),
    folds: o.model === undefined ? undefined : readFolds(o.model, modelLabels, spec.classes.length),
    evaluation: o.evaluation === undefined ? undefined : readEvaluation(o.evaluation),
    fields: [],
    lists: { confident: [], doubtful: [], disagreements: [] },
  };
  if (o.predictions !== undefined) {
    const predictor = await predictorOf(o, spec);
    try {
      const gallery = { imagesFolder: o.imagesFolder!, size, spec, labels, predictor };
      Object.assign(data, await galleryOf(o.predictions, gallery, most));
    } finally {
      predictor?.dispose();
    }
  }
  await writeDurably(path, reportHtml(data));
  const sections = [
    ...(data.training.length > 0 ? ['training'] : []),
    ...(data.folds ? ['folds'] : []),
    ...(data.evaluation === undefined ? [] : ['scores']),
    ...(data.fields.length > 0 ? ['gallery'] : []),
  ];
  return { path, sections, fields: data.fields.length };
}
