import { InvalidArgumentError, Option } from 'commander';
import type { SegmenterOptions } from '../cells/segmenter';
import { HPA, readDatasetSpec, type DatasetSpec } from '../data/dataset_spec';
import { CellcamError } from '../errors';
import type { Device, Precision } from '../options';

/** The Python original's spelling (`--labels_file`) and the usual one (`--labels-file`) mean the same. */
export function dashed(argv: string[]): string[] {
  return argv.map((word) => word.replace(/^--[A-Za-z0-9_-]+/, (name) => name.replaceAll('_', '-')));
}

/** Reads an option's number; what it may be is checked where it is used. */
export function toNumber(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('Expected a number.');
}

/** Reads two numbers, `.5,1`. */
export function toRange(text: string): [from: number, to: number] {
  const [from, to, ...more] = text.split(',').map(toNumber);
  if (from !== undefined && to !== undefined && more.length === 0) return [from, to];
  throw new InvalidArgumentError('Expected two numbers such as .5,1.');
}

/** Reads a part of a whole, `2/8`. */
export function toShard(text: string): { index: number; count: number } {
  const [, index, count] = /^(\d+)\/(\d+)$/.exec(text) ?? [];
  if (index !== undefined && count !== undefined) return { index: Number(index), count: Number(count) };
  throw new InvalidArgumentError('Expected i/n such as 2/8.');
}

export function numeric(flags: string, description: string, fallback?: number): Option {
  const option = new Option(flags, description).argParser(toNumber);
  return fallback === undefined ? option : option.default(fallback);
}

/** 'None', as Python's command lines write it, means nothing. */
export function orNothing(text: string | null | undefined): string | undefined {
  return text === 'None' || text === 'none' ? undefined : (text ?? undefined);
}

export function specOf(path: string | undefined): DatasetSpec {
  return path === undefined ? HPA : readDatasetSpec(path);
}

/** Options that several commands share. */
export const homeOptions = (): Option[] => [
  new Option('--home <folder>', 'holds models/ and oof/ (HOME_DIR, else the working folder)'),
  new Option('--data-home <folder>', 'holds the tables (DATA_HOME, else <home>/data)'),
  new Option('--train-home <folder>', 'holds the HDF5 files (TRAIN_HOME, else <data-home>/train)'),
];

export const deviceOptions = (precision = 'auto'): Option[] => [
  new Option('--device <device>', 'auto, cpu, cuda or cuda:N').default('auto'),
  new Option('--precision <precision>', 'auto, fp32, bf16, fp16 or int16').default(precision),
];

/** How cells are found. */
export interface SegmenterArguments {
  segmenter?: 'builtin' | 'hpa';
  nucleiWeights?: string;
  cellWeights?: string;
  scale?: 'fast' | 'full';
  device?: Device;
  precision?: Precision;
}

export const segmenterOptions = (): Option[] => [
  new Option(
    '--segmenter <method>',
    'how cells are found: without weights, or by the networks of HPA-Cell-Segmentation',
  )
    .choices(['builtin', 'hpa'])
    .default('builtin'),
  new Option('--nuclei-weights <file>', 'dpn_unet_nuclei_v1.pth, for --segmenter hpa'),
  new Option('--cell-weights <file>', 'dpn_unet_cell_3ch_v1.pth, for --segmenter hpa'),
  new Option('--scale <scale>', 'fast: networks and cells at --image-size; full: cells at the size of the files')
    .choices(['fast', 'full'])
    .default('fast'),
];

export function segmenterOf(o: SegmenterArguments): SegmenterOptions {
  if (o.segmenter !== 'hpa') return { method: 'builtin' };
  if (o.nucleiWeights === undefined || o.cellWeights === undefined) {
    throw new CellcamError('ERR_INVALID_ARG', 'Expected --nuclei-weights and --cell-weights with --segmenter hpa');
  }
  return {
    method: 'hpa',
    nucleiWeights: o.nucleiWeights,
    cellWeights: o.cellWeights,
    scale: o.scale ?? 'fast',
    device: o.device ?? 'auto',
    precision: o.precision ?? 'fp32',
  };
}

export const commonOptions = (): Option[] => [
  new Option('--spec <file>', 'JSON with the classes and channels of another data set (default: Human Protein Atlas)'),
  new Option('--json', 'one JSON object a line instead of text'),
];
