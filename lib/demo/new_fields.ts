import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { evaluatePredictions } from '../inference/evaluate';
import { predictCells } from '../inference/predict';
import { writeReport } from '../inference/report';
import type { Device, Precision } from '../options';
import { DEMO_SPEC, generateFields } from './fields';

export interface NewFieldsJob {
  /** Of the demo. */
  folder: string;
  /** Best weights of every fold. */
  weights: string[];
  /** Folder of the trained model. */
  model: string;
  /** The table that it was trained on. */
  labelsFile: string;
  backbone: string;
  size: number;
  seed: number;
  device?: Device;
  precision?: Precision;
  signal?: AbortSignal;
}

const FIELDS = 24;
/** Far from the seeds of the training fields. */
const SEED = 50_000;

/**
 * What an analyst does with a trained model: new fields of which nothing is known are segmented, every cell is predicted in both steps by
 * the average of all folds' weights, and, as these are drawn fields, scored against the truth. Ends in a report.
 * @returns a line for each result
 */
export async function predictNewFields(job: NewFieldsJob): Promise<string[]> {
  const { folder, size, seed, device, precision, signal, backbone } = job;
  const own = join(folder, 'new');
  await mkdir(own, { recursive: true });
  const set = await generateFields({ folder: own, fields: FIELDS, size, seed: SEED + seed, signal });
  const output = join(folder, 'predictions');
  const common = { imagesFolder: set.imagesFolder, weightsFiles: job.weights, backbone, imageSize: size, device, spec: DEMO_SPEC };
  const { cells } = await predictCells({ ...common, home: folder, output, precision, signal });
  const scores = join(folder, 'scores.json');
  const labelsFile = join(own, 'labels.csv');
  const evaluation = await evaluatePredictions({
    predictions: join(output, 'submission.csv'),
    truth: join(own, 'cells.csv'),
    truthMasks: set.masksFolder,
    labelsFile,
    output: scores,
    variant: 'mask_strict', // a class that a field does not have is wrong there, not left out
    spec: DEMO_SPEC,
    signal,
  });
  const report = await writeReport({
    ...common,
    output: join(folder, 'report.html'),
    title: 'The demo: drawn fields whose cells are known',
    model: job.model,
    predictions: output,
    evaluation: scores,
    labelsFile,
    modelLabelsFile: job.labelsFile,
    fields: 8,
  });
  return [
    `${FIELDS} new fields: ${cells} cells found by the built-in segmenter of ${countCells(set.cells)} drawn`,
    `mAP of cells at IoU .6, segmentation included, all classes in every field: ${evaluation.cells!.mAP.toFixed(2)}; F1 of images: ${evaluation.imageLevel!.f1.toFixed(2)}`,
    `submission and table of cells: ${output}`,
    `report: ${report.path}`,
  ];
}

function countCells(cells: { id: string; cellId: number }[]): number {
  return new Set(cells.map(({ id, cellId }) => `${id}/${cellId}`)).size;
}
