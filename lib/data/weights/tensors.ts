import { CellcamError } from '../../errors';

/** Element types of weight files, by the names that this library uses. */
export type DType =
  'float64' | 'float32' | 'float16' | 'bfloat16' | 'int64' | 'int32' | 'int16' | 'int8' | 'uint8' | 'bool';

export type TensorData =
  Float64Array | Float32Array | Uint16Array | BigInt64Array | Int32Array | Int16Array | Int8Array | Uint8Array;

/** One tensor; `data` is row-major. float16 and bfloat16 come as their raw bits, bool as 0 and 1. */
export interface WeightTensor {
  dtype: DType;
  shape: number[];
  data: TensorData;
}

/** Tensors by name, in the file's order. */
export type Weights = Record<string, WeightTensor>;

interface Kind {
  /** The name in safetensors files. */
  tag: string;
  bytes: number;
  create(buffer: ArrayBufferLike, offset: number, length: number): TensorData;
}

export const KINDS: Readonly<Record<DType, Kind>> = {
  float64: { tag: 'F64', bytes: 8, create: (b, o, n) => new Float64Array(b, o, n) },
  float32: { tag: 'F32', bytes: 4, create: (b, o, n) => new Float32Array(b, o, n) },
  float16: { tag: 'F16', bytes: 2, create: (b, o, n) => new Uint16Array(b, o, n) },
  bfloat16: { tag: 'BF16', bytes: 2, create: (b, o, n) => new Uint16Array(b, o, n) },
  int64: { tag: 'I64', bytes: 8, create: (b, o, n) => new BigInt64Array(b, o, n) },
  int32: { tag: 'I32', bytes: 4, create: (b, o, n) => new Int32Array(b, o, n) },
  int16: { tag: 'I16', bytes: 2, create: (b, o, n) => new Int16Array(b, o, n) },
  int8: { tag: 'I8', bytes: 1, create: (b, o, n) => new Int8Array(b, o, n) },
  uint8: { tag: 'U8', bytes: 1, create: (b, o, n) => new Uint8Array(b, o, n) },
  bool: { tag: 'BOOL', bytes: 1, create: (b, o, n) => new Uint8Array(b, o, n) },
};

export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(KINDS, value);
}

/** Number of elements of a shape; undefined where it is not a list of sizes that multiply to a safe integer. */
export function elements(shape: unknown): number | undefined {
  if (!Array.isArray(shape)) return undefined;
  let count = 1;
  for (const n of shape as unknown[]) {
    if (typeof n !== 'number' || !Number.isSafeInteger(n) || n < 0) return undefined;
    count *= n;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}

/** The tensor's bytes, without a copy. */
export function bytesOf(tensor: WeightTensor): Uint8Array {
  return new Uint8Array(tensor.data.buffer, tensor.data.byteOffset, tensor.data.byteLength);
}

/** Checks that a tensor's type, shape and data agree. */
export function checkTensor(name: string, tensor: WeightTensor): void {
  const count = isDType(tensor.dtype) ? elements(tensor.shape) : undefined;
  if (count === undefined || tensor.data.byteLength !== count * KINDS[tensor.dtype].bytes) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected a known dtype and as many values as the shape holds for tensor ${name} but received ` +
        `${tensor.dtype} (${String(tensor.shape)}) with ${tensor.data.byteLength} bytes`,
    );
  }
}
