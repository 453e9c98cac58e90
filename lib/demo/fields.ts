import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import sharp from 'sharp';
import type { DatasetSpec } from '../data/dataset_spec';
import { CellcamError, messageOf } from '../errors';
import { requireInteger, requireSignal, requireString, throwIfAborted } from '../options';
import { photograph } from './camera';
import { randomLayout } from './layout';
import { DEMO_SPEC, labelCells, labelImage, planFields, type FieldPlan } from './plan';
import { drawProtein } from './protein';
import { RandomStream } from './random';
import { drawMicrotubules, drawNuclei, drawReticulum } from './stains';

export { DEMO_SPEC } from './plan';

export interface FieldOptions {
  /** Where to write; created if absent. */
  folder: string;
  /** How many fields, at least 1. Default 150. */
  fields?: number;
  /** Side of a field in pixels, at least 48. Default 192. */
  size?: number;
  /** Same seed, same files. Default 0. */
  seed?: number;
  signal?: AbortSignal;
}

/** A true cell: its number in the mask and its class indices. */
export interface DemoCell {
  id: string;
  cellId: number;
  labels: number[];
}

export interface DemoSet {
  spec: DatasetSpec;
  /** 16-bit grey `<id>_{red,green,blue,yellow}.png`. */
  imagesFolder: string;
  /** 16-bit label maps `<id>.png`, 0 outside of cells. */
  masksFolder: string;
  /** `ID,Label` of the fields. */
  labelsFile: string;
  /** `ID,cell_id,Label` of the cells: what a model never sees. */
  cellsFile: string;
  fields: { id: string; labels: number[] }[];
  cells: DemoCell[];
}

interface Field {
  id: string;
  size: number;
  channels: Record<string, Uint16Array>;
  mask: Uint16Array;
  cellLabels: number[][];
}

function drawField(id: string, size: number, plan: FieldPlan, random: RandomStream): Field {
  const layout = randomLayout(size, random);
  const cellLabels = labelCells(plan, layout.cells.length, random);
  const channels = {
    red: photograph(drawMicrotubules(layout, random), random),
    green: photograph(drawProtein(layout, cellLabels, random), random),
    blue: photograph(drawNuclei(layout, random), random),
    yellow: photograph(drawReticulum(layout, random), random),
  };
  return { id, size, channels, mask: layout.labels, cellLabels };
}

async function writeGrey16(path: string, pixels: Uint16Array, size: number): Promise<void> {
  const image = sharp(pixels, { raw: { width: size, height: size, channels: 1 } });
  try {
    await image.toColourspace('grey16').png({ compressionLevel: 3 }).toFile(path);
  } catch (error) {
    throw new CellcamError('ERR_WRITE', `Expected to write ${path}: ${messageOf(error)}`, { cause: error });
  }
}

async function writeField(set: DemoSet, { id, size, channels, mask }: Field): Promise<void> {
  const stains = Object.entries(channels).map(([name, pixels]) =>
    writeGrey16(join(set.imagesFolder, `${id}_${name}.png`), pixels, size),
  );
  await Promise.all([...stains, writeGrey16(join(set.masksFolder, `${id}.png`), mask, size)]);
}

function listLiteral(labels: number[]): string {
  return `[${labels.join(', ')}]`;
}

async function writeTables(set: DemoSet): Promise<void> {
  const fields = set.fields.map(({ id, labels }) => [id, listLiteral(labels)]);
  const cells = set.cells.map(({ id, cellId, labels }) => [id, cellId, listLiteral(labels)]);
  await writeFile(set.labelsFile, stringify([['ID', 'Label'], ...fields]));
  await writeFile(set.cellsFile, stringify([['ID', 'cell_id', 'Label'], ...cells]));
}

function emptySet(folder: string): DemoSet {
  return {
    spec: DEMO_SPEC,
    imagesFolder: join(folder, 'images'),
    masksFolder: join(folder, 'masks'),
    labelsFile: join(folder, 'labels.csv'),
    cellsFile: join(folder, 'cells.csv'),
    fields: [],
    cells: [],
  };
}

/**
 * Draws synthetic fluorescence fields with known cells: nuclei in blue, ER in yellow, microtubules in red and, in green, a
 * protein whose place in the cell is the class. In most fields only some of the cells make the protein, so image labels say less than
 * cell labels do. The tables are written last: where they are, the set is complete.
 * @throws CellcamError ERR_INVALID_ARG, ERR_WRITE; the signal's reason
 */
export async function generateFields(options: FieldOptions): Promise<DemoSet> {
  const set = emptySet(requireString(options.folder, 'folder'));
  const count = requireInteger(options.fields ?? 150, 'fields', 1);
  const size = requireInteger(options.size ?? 192, 'size', 48, 4096);
  const seed = requireInteger(options.seed ?? 0, 'seed', 0, 2 ** 32 - 1);
  const signal = requireSignal(options.signal);
  await Promise.all([set.imagesFolder, set.masksFolder].map((folder) => mkdir(folder, { recursive: true })));
  const plans = planFields(count, new RandomStream(seed));
  let written = Promise.resolve();
  for (const [i, plan] of plans.entries()) {
    throwIfAborted(signal);
    const field = drawField(`field_${String(i + 1).padStart(4, '0')}`, size, plan, new RandomStream(seed, i + 1));
    await written;
    written = writeField(set, field); // sharp's threads compress this field while the next is drawn
    set.fields.push({ id: field.id, labels: labelImage(field.cellLabels) });
    field.cellLabels.forEach((labels, cell) => set.cells.push({ id: field.id, cellId: cell + 1, labels }));
  }
  await written;
  await writeTables(set);
  return set;
}
