import { createWriteStream } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { rm } from 'node:fs/promises';
import { ZipFile } from 'yazl';
import { publish, temporaryName, writeError } from '../durable';
import { bytesOf, checkTensor, type DType, type Weights, type WeightTensor } from './tensors';

const STORAGES: Record<DType, string> = {
  float64: 'DoubleStorage',
  float32: 'FloatStorage',
  float16: 'HalfStorage',
  bfloat16: 'BFloat16Storage',
  int64: 'LongStorage',
  int32: 'IntStorage',
  int16: 'ShortStorage',
  int8: 'CharStorage',
  uint8: 'ByteStorage',
  bool: 'BoolStorage',
};

/** Appends pickle opcodes of protocol 2. */
class Pickler {
  readonly #parts: Buffer[] = [Buffer.from([0x80, 2])];

  op(...opcodes: number[]): this {
    this.#parts.push(Buffer.from(opcodes));
    return this;
  }

  global(module: string, name: string): this {
    this.#parts.push(Buffer.from(`c${module}\n${name}\n`, 'utf8'));
    return this;
  }

  text(value: string): this {
    const bytes = Buffer.from(value, 'utf8');
    const head = Buffer.from([0x58, 0, 0, 0, 0]);
    head.writeUInt32LE(bytes.length, 1);
    this.#parts.push(head, bytes);
    return this;
  }

  /** BININT, or LONG1 where four bytes are too few. */
  integer(value: number): this {
    const small = value <= 0x7fffffff;
    const bytes = Buffer.alloc(small ? 5 : 10);
    bytes[0] = small ? 0x4a : 0x8a;
    if (small) bytes.writeInt32LE(value, 1);
    else {
      bytes[1] = 8;
      bytes.writeBigInt64LE(BigInt(value), 2);
    }
    this.#parts.push(bytes);
    return this;
  }

  integers(values: number[]): this {
    this.op(MARK);
    for (const value of values) this.integer(value);
    return this.op(TUPLE);
  }

  end(): Buffer {
    this.op(STOP);
    return Buffer.concat(this.#parts);
  }
}

const [MARK, TUPLE, EMPTY_TUPLE, REDUCE, PERSISTENT, SET_ITEM, FALSE, STOP] = [
  0x28, 0x74, 0x29, 0x52, 0x51, 0x73, 0x89, 0x2e,
] as const;

function rowMajorStrides(shape: number[]): number[] {
  const strides = new Array<number>(shape.length).fill(1);
  for (let d = shape.length - 2; d >= 0; d--) strides[d] = strides[d + 1]! * Math.max(1, shape[d + 1]!);
  return strides;
}

function pickleTensor(p: Pickler, { dtype, shape }: WeightTensor, key: string, count: number): void {
  p.global('torch._utils', '_rebuild_tensor_v2').op(MARK);
  p.op(MARK)
    .text('storage')
    .global('torch', STORAGES[dtype])
    .text(key)
    .text('cpu')
    .integer(count)
    .op(TUPLE, PERSISTENT);
  p.integer(0).integers(shape).integers(rowMajorStrides(shape)).op(FALSE);
  p.global('collections', 'OrderedDict').op(EMPTY_TUPLE, REDUCE);
  p.op(TUPLE, REDUCE);
}

/** An OrderedDict of tensors, storage k being the k-th tensor's. */
function pickleStateDict(tensors: [string, WeightTensor][]): Buffer {
  const p = new Pickler().global('collections', 'OrderedDict').op(EMPTY_TUPLE, REDUCE);
  tensors.forEach(([name, tensor], i) => {
    p.text(name);
    pickleTensor(p, tensor, String(i), tensor.data.length);
    p.op(SET_ITEM);
  });
  return p.end();
}

/** Writes a file that Python's torch.load(…, weights_only=True) reads as an OrderedDict of tensors; whole or not at all. */
export async function writeTorchFile(path: string, weights: Weights): Promise<void> {
  const tensors = Object.entries(weights);
  for (const [name, tensor] of tensors) checkTensor(name, tensor);
  const zip = new ZipFile();
  const stored = { compress: false, mtime: new Date('1980-01-01T12:00:00Z') } as const;
  zip.addBuffer(pickleStateDict(tensors), 'archive/data.pkl', stored);
  zip.addBuffer(Buffer.from('little'), 'archive/byteorder', stored);
  tensors.forEach(([, tensor], i) => {
    const bytes = bytesOf(tensor);
    const lazily = (done: (error: unknown, stream: Readable) => void): void =>
      done(null, Readable.from(chunksOf(bytes)));
    zip.addReadStreamLazy(`archive/data/${i}`, { ...stored, size: bytes.byteLength }, lazily);
  });
  zip.addBuffer(Buffer.from('3\n'), 'archive/version', stored);
  zip.end();
  try {
    await pipeline(zip.outputStream, createWriteStream(temporaryName(path)));
  } catch (error) {
    await rm(temporaryName(path), { force: true });
    throw writeError(path, error);
  }
  await publish(path);
}

const CHUNK = 16 * 1024 * 1024;

function* chunksOf(bytes: Uint8Array): Generator<Uint8Array> {
  for (let at = 0; at < bytes.byteLength; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
}
