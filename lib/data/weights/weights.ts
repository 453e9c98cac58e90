import { extname } from 'node:path';
import { invalidArgument, requireBoolean, requireString } from '../../options';
import { listSafetensors, readSafetensors, writeSafetensors } from './safetensors';
import type { Weights } from './tensors';
import { listTorchFile, readTorchFile, type TensorOutline } from './torch_file';
import { writeTorchFile } from './torch_write';

export type { TensorOutline } from './torch_file';

export interface ReadOptions {
  /**
   * Also take the tensors of a whole pickled module (`torch.save(model)`), whose classes and calls are then kept as inert
   * records and never run. Default: false, such files are refused.
   */
  wholeModule?: boolean;
}

function format(path: string): 'safetensors' | 'torch' {
  const extension = extname(requireString(path, 'path')).toLowerCase();
  if (extension === '.safetensors') return 'safetensors';
  if (extension === '.pt' || extension === '.pth' || extension === '.bin') return 'torch';
  throw invalidArgument('a path that ends in .safetensors, .pt, .pth or .bin', 'path', path);
}

function torchOptions(o: ReadOptions): { wholeModule: boolean } {
  return { wholeModule: requireBoolean(o.wholeModule ?? false, 'wholeModule') };
}

/**
 * Reads all tensors of a weights file, in the file's order; DataParallel's prefix `module.` is taken off. Nothing in the file is
 * ever executed: a pickle that asks for anything but tensors is refused by the name of what it asks for.
 * @param path .safetensors, or .pt, .pth or .bin as torch.save writes them (zip or legacy)
 * @returns by name: dtype, shape and row-major data; bfloat16 and float16 as raw Uint16Array
 * @throws CellcamError ERR_FILE_NOT_FOUND, ERR_WEIGHTS naming the broken rule, ERR_INVALID_ARG for another extension
 */
export async function readWeights(path: string, o: ReadOptions = {}): Promise<Weights> {
  const options = torchOptions(o);
  return format(path) === 'torch' ? readTorchFile(path, options) : (await readSafetensors(path)).tensors;
}

/** Names, dtypes and shapes of a weights file, without reading its numbers. Throws as readWeights does. */
export async function listWeights(path: string, o: ReadOptions = {}): Promise<TensorOutline[]> {
  const options = torchOptions(o);
  return format(path) === 'torch' ? listTorchFile(path, options) : (await listSafetensors(path)).outline;
}

/**
 * Writes tensors to a weights file by its extension, whole or not at all. Files of torch's format open by
 * `torch.load(path, weights_only=True)`.
 */
export async function writeWeights(path: string, tensors: Weights): Promise<void> {
  if (format(path) === 'torch') await writeTorchFile(path, tensors);
  else await writeSafetensors(path, tensors);
}
