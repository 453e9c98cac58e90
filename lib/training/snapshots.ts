import { listSafetensors, readSafetensors, writeSafetensors } from '../data/weights/safetensors';
import type { Weights } from '../data/weights/tensors';
import { CellcamError } from '../errors';
import type { EpochTally, ScalerState } from '../native';

/** What a Trainer needs to go on. */
export interface TrainerState {
  model: Weights;
  optimiser: Weights;
  scaler: ScalerState;
}

/** A state file's contents: the trainer's tensors, an interrupted epoch's tally, and notes of whoever wrote it. */
export interface StateFile {
  state: TrainerState;
  tally: EpochTally | null;
  notes: Record<string, unknown>;
}

function prefixed(prefix: string, tensors: Weights): Weights {
  return Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]));
}

function part(prefix: string, tensors: Weights): Weights {
  const found = Object.entries(tensors).filter(([name]) => name.startsWith(prefix));
  return Object.fromEntries(found.map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}

function tallyTensors(tally: EpochTally | null): Weights {
  if (tally === null) return {};
  return {
    'tally.sums': { dtype: 'float64', ...tally.sums },
    'tally.probabilities': { dtype: 'float32', ...tally.probabilities },
  };
}

/** Writes a state as one safetensors file, whole or not at all. */
export async function writeState(
  path: string,
  state: TrainerState,
  notes: Record<string, unknown>,
  tally: EpochTally | null = null,
): Promise<void> {
  const tensors = {
    ...prefixed('model.', state.model),
    ...prefixed('optimiser.', state.optimiser),
    ...tallyTensors(tally),
  };
  const progress = tally && { images: tally.images, nextBatch: tally.nextBatch, complete: tally.complete };
  const header = { format: 'cellcam training state 1', scaler: state.scaler, tally: progress, notes };
  await writeSafetensors(path, tensors, { cellcam: JSON.stringify(header) });
}

function readTally(tensors: Weights, progress: unknown): EpochTally | null {
  const sums = tensors['tally.sums'];
  const probabilities = tensors['tally.probabilities'];
  if (!progress || !sums || !probabilities) return null;
  const counts = progress as { images: number; nextBatch: number; complete: boolean };
  return {
    ...counts,
    sums: { data: sums.data as Float64Array, shape: sums.shape },
    probabilities: { data: probabilities.data as Float32Array, shape: probabilities.shape },
  };
}

interface StateHeader {
  scaler: ScalerState;
  tally: unknown;
  notes: Record<string, unknown>;
}

function parseHeader(path: string, metadata: Record<string, string>): StateHeader {
  if (metadata.cellcam === undefined) {
    throw new CellcamError('ERR_WEIGHTS', `Expected a training state in ${path} but it holds weights only`);
  }
  return JSON.parse(metadata.cellcam) as StateHeader;
}

/** @throws CellcamError ERR_WEIGHTS if the file is no training state */
export async function readState(path: string): Promise<StateFile> {
  const { tensors, metadata } = await readSafetensors(path);
  const header = parseHeader(path, metadata);
  const state = { model: part('model.', tensors), optimiser: part('optimiser.', tensors), scaler: header.scaler };
  return { state, tally: readTally(tensors, header.tally), notes: header.notes };
}

/** The notes of a state file alone. */
export async function readStateNotes(path: string): Promise<Record<string, unknown>> {
  return parseHeader(path, (await listSafetensors(path)).metadata).notes;
}
