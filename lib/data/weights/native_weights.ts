import { CellcamError } from '../../errors';
import type { NativeTensor } from '../../native';
import { bytesOf, isDType, KINDS, type Weights } from './tensors';

/** Tensors in the form in which they cross to the addon. */
export function toNative(weights: Weights): NativeTensor[] {
  return Object.entries(weights).map(([name, t]) => ({ name, dtype: t.dtype, shape: t.shape, data: bytesOf(t) }));
}

/** Tensors from the addon, without a copy. */
export function fromNative(tensors: NativeTensor[]): Weights {
  const weights = Object.create(null) as Weights;
  for (const { name, dtype, shape, data } of tensors) {
    if (!isDType(dtype)) throw new CellcamError('ERR_NATIVE', `tensor ${name} has the unknown dtype ${dtype}`);
    const kind = KINDS[dtype];
    weights[name] = { dtype, shape, data: kind.create(data.buffer, data.byteOffset, data.byteLength / kind.bytes) };
  }
  return weights;
}
