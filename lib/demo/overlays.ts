import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { makeCam } from '../cells/cam_intersection';
import { resizeCam } from '../cells/enlarge';
import { FieldReader } from '../data/field_reader';
import { imageIndex } from '../data/image_index';
import type { ImageIndex } from '../data/loader';
import { findMask, readMask } from '../data/masks';
import { Predictor, type Prediction } from '../inference/predictor';
import type { Device } from '../options';
import { writeOverlay, type CellCaption } from '../report/overlay';
import { DEMO_SPEC, type DemoSet } from './fields';
import type { ScoredCell } from './score';

export interface OverlayJob {
  folder: string;
  set: DemoSet;
  size: number;
  /** For each field shown: its id and the weights that never saw it. */
  shown: { id: string; weights: string }[];
  cells: ScoredCell[];
  backbone: string;
  device?: Device;
}

const SHORT = ['nucleoplasm', 'membrane', 'nucleoli', 'plasma m.', 'cytosol', 'vesicles', 'negative'];

function best(probabilities: ArrayLike<number>): number {
  return Array.from(probabilities).reduce((top, p, c, all) => (p > all[top]! ? c : top), 0);
}

function captions(job: OverlayJob, id: string): CellCaption[] {
  const cells = job.set.cells.filter((cell) => cell.id === id);
  return cells.map(({ cellId, labels }) => {
    const predicted = best(job.cells.find((cell) => cell.id === id && cell.cellId === cellId)!.probabilities);
    const truth = labels.map((c) => SHORT[c]).join(', ');
    const correct = labels.includes(predicted);
    return { cellId, correct, lines: correct ? [truth] : [SHORT[predicted]!, `true: ${truth}`] };
  });
}

/** The map of a class, enlarged to the field. */
function camOf(prediction: Prediction, index: number, size: number): Float32Array {
  const [, k, h, w] = prediction.maps.shape as [number, number, number, number];
  const cam = makeCam({ data: prediction.maps.data, shape: [k, h, w] });
  const out = new Float32Array(size * size);
  resizeCam(cam.data.subarray(index * h * w, (index + 1) * h * w), [h, w], [size, size], out);
  return out;
}

async function drawOne(job: OverlayJob, reader: FieldReader, index: ImageIndex, id: string, weights: string): Promise<void> {
  const data = new Uint8Array(job.size * job.size * 4);
  await reader.readInto(index.ids.indexOf(id), data);
  using predictor = await Predictor.create({ backbone: job.backbone, weights: [weights], spec: DEMO_SPEC, device: job.device });
  const prediction = await predictor.predict({ data, shape: [1, job.size, job.size, 4] });
  const shown = best(prediction.logits.data);
  const mask = await readMask(findMask(job.set.masksFolder, id));
  await writeOverlay(join(job.folder, 'pictures', `${id}.png`), {
    channels: data,
    size: [job.size, job.size],
    cells: mask,
    cam: camOf(prediction, shown, job.size),
    captions: captions(job, id),
    title: `${id}: activation map of ${DEMO_SPEC.classes[shown]}`,
    spec: DEMO_SPEC,
  });
}

/** Draws some fields with their cells, what was predicted of them and where the network looked. */
export async function drawOverlays(job: OverlayJob): Promise<void> {
  await mkdir(join(job.folder, 'pictures'), { recursive: true });
  const ids = job.shown.map(({ id }) => id);
  const table = { ids, ext: ids.map(() => 'default'), path: 'the demo' };
  const index = await imageIndex(table, { trainHome: join(job.folder, 'train'), size: job.size, spec: DEMO_SPEC });
  const reader = new FieldReader(index);
  try {
    for (const { id, weights } of job.shown) await drawOne(job, reader, index, id, weights);
  } finally {
    reader.close();
  }
}
