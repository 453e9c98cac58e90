import { types } from 'node:util';
import { CellcamError, messageOf } from './errors';

/** A row-major array: `data.length` is the product of `shape`. */
export interface NdArray<T> {
  data: T;
  shape: number[];
}

/** Where a model runs. `auto` takes CUDA if there is a device, else the CPU. */
export type Device = 'auto' | 'cpu' | 'cuda' | `cuda:${number}`;

/**
 * Arithmetic of a network. `auto`: fp16 on CUDA, bf16 on CPUs that multiply it faster than fp32 (those with AMX, AMD's with AVX-512 BF16), int16 on
 * others with AVX2 (those with AVX-512 only if they have its VNNI), else fp32.
 * int16: fp32, so outputs and losses are the same, but for gradients: what is multiplied for those of 1x1 convolutions with stride 1 is rounded to
 * integers of 16 bits with a scale for up to 256 of them, and summed up exactly: some 1e-4 from fp32 for each convolution.
 */
export type Precision = 'auto' | 'fp32' | 'bf16' | 'fp16' | 'int16';

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'string') return `'${value}' of type string`;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
    return `${value} of type ${typeof value}`;
  }
  if (typeof value === 'object') return `an object of type ${value.constructor?.name ?? 'Object'}`;
  return `a ${typeof value}`;
}

/** The one error for a wrong argument: "Expected X for name but received Y of type Z". */
export function invalidArgument(expected: string, name: string, value: unknown): CellcamError {
  return new CellcamError('ERR_INVALID_ARG', `Expected ${expected} for ${name} but received ${describe(value)}`);
}

export function requireInteger(value: unknown, name: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max) return value;
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`;
  throw invalidArgument(`an integer ${range}`, name, value);
}

export function requireNumber(value: unknown, name: string, min: number, max = Infinity): number {
  if (typeof value === 'number' && Number.isFinite(value) && value >= min && value <= max) return value;
  const range = max === Infinity ? `of at least ${min}` : `from ${min} to ${max}`;
  throw invalidArgument(`a finite number ${range}`, name, value);
}

export function requireString(value: unknown, name: string): string {
  if (typeof value === 'string' && value.length > 0) return value;
  throw invalidArgument('a non-empty string', name, value);
}

export function requireBoolean(value: unknown, name: string): boolean {
  if (typeof value === 'boolean') return value;
  throw invalidArgument('true or false', name, value);
}

export function requireOneOf<T extends string>(value: unknown, name: string, choices: readonly T[]): T {
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  throw invalidArgument(`one of ${choices.join(', ')}`, name, value);
}

export function requireDevice(value: unknown, name = 'device'): Device {
  if (typeof value === 'string' && /^(auto|cpu|cuda(:\d+)?)$/.test(value)) return value as Device;
  throw invalidArgument("'auto', 'cpu', 'cuda' or 'cuda:N'", name, value);
}

export function requirePrecision(value: unknown, name = 'precision'): Precision {
  return requireOneOf(value, name, ['auto', 'fp32', 'bf16', 'fp16', 'int16'] as const);
}

export function requireSignal(value: unknown, name = 'signal'): AbortSignal | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'object' && value !== null && 'aborted' in value && 'addEventListener' in value) {
    return value as AbortSignal;
  }
  throw invalidArgument('an AbortSignal', name, value);
}

/** Throws the signal's reason if it has been aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw abortReason(signal);
}

/** What an aborted operation rejects with: the reason given, as AbortSignal users expect. */
export function abortReason(signal: AbortSignal): Error {
  const reason: unknown = signal.reason;
  return reason instanceof Error || types.isNativeError(reason)
    ? reason
    : new CellcamError('ERR_ABORTED', `Aborted: ${messageOf(reason)}`, { cause: reason });
}

type Kind = 'Uint8Array' | 'Uint16Array' | 'Float32Array' | 'Float64Array' | 'Int32Array';
interface Kinds {
  Uint8Array: Uint8Array;
  Uint16Array: Uint16Array;
  Float32Array: Float32Array;
  Float64Array: Float64Array;
  Int32Array: Int32Array;
}

/** Which typed array this is, also for arrays of another realm; undefined if none. */
export function typedArrayKind(value: unknown): string | undefined {
  return types.isTypedArray(value) ? (value as { [Symbol.toStringTag]: string })[Symbol.toStringTag] : undefined;
}

/**
 * Checks an NdArray: its type, its number of dimensions and that shape and length agree.
 * `dims` names each dimension; a number fixes it.
 */
export function requireNdArray<K extends Kind>(
  value: unknown,
  name: string,
  kinds: readonly K[],
  dims: readonly (string | number)[],
): NdArray<Kinds[K]> {
  const wanted = `an NdArray of ${kinds.join(' or ')} with shape (${dims.join(', ')})`;
  if (typeof value !== 'object' || value === null || !('data' in value) || !('shape' in value)) {
    throw invalidArgument(wanted, name, value);
  }
  const { data, shape } = value;
  const kind = typedArrayKind(data);
  if (!kinds.some((k) => k === kind)) throw invalidArgument(wanted, `${name}.data`, data);
  const fits =
    Array.isArray(shape) &&
    shape.length === dims.length &&
    shape.every((n, i) => Number.isSafeInteger(n) && n >= 0 && (typeof dims[i] !== 'number' || dims[i] === n));
  if (!fits) {
    throw new CellcamError('ERR_INVALID_ARG', `Expected ${wanted} for ${name} but received shape (${String(shape)})`);
  }
  const size = (shape as number[]).reduce((product, n) => product * n, 1);
  const length = (data as { length: number }).length;
  if (length !== size) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected ${size} values for ${name}.data of shape (${shape.join(', ')}) but received ${length}`,
    );
  }
  return value as NdArray<Kinds[K]>;
}
