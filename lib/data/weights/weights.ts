import { extname } from 'node:path';
import { CellcamError } from '../../errors';
import { requireString } from '../../options';
import { readSafetensors, writeSafetensors } from './safetensors';
import type { Weights } from './tensors';

function format(path: string): 'safetensors' {
  const extension = extname(requireString(path, 'path')).toLowerCase();
  if (extension === '.safetensors') return 'safetensors';
  throw new CellcamError(
    'ERR_INVALID_ARG',
    `Expected a .safetensors file but received ${path}: in Python, safetensors.torch.save_file(torch.load('model.pt'), 'model.safetensors') converts`,
  );
}

/**
 * Reads all tensors of a weights file, in the file's order.
 * @returns by name: dtype, shape and row-major data; bfloat16 and float16 as raw Uint16Array
 * @throws CellcamError ERR_FILE_NOT_FOUND, ERR_WEIGHTS naming the broken rule, ERR_INVALID_ARG for another extension
 */
export async function readWeights(path: string): Promise<Weights> {
  format(path);
  return (await readSafetensors(path)).tensors;
}

/** Writes tensors to a weights file by its extension, whole or not at all. */
export async function writeWeights(path: string, tensors: Weights): Promise<void> {
  format(path);
  await writeSafetensors(path, tensors);
}
