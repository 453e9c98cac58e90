// A pickle is a program for a stack machine. This one builds plain values and inert records: it imports nothing, calls nothing.

/** Something in a pickle, or around it, that a weights file must not have. */
export class PickleError extends Error {}
/** The bytes end before the pickle does. */
export class PickleEnded extends PickleError {}

/** A class or function by its name, such as `collections.OrderedDict`. Never imported. */
export class Global {
  constructor(readonly name: string) {}
}

export class Tuple {
  constructor(readonly items: readonly unknown[]) {}
}

/** A dict or an OrderedDict, in insertion order. */
export class Dict {
  readonly entries = new Map<unknown, unknown>();
}

/** An object of a class, or the result of a function, that nobody made: what it would be made of. */
export class InertRecord {
  state: unknown;
  constructor(
    readonly type: Global,
    readonly args: readonly unknown[],
  ) {}
}

/** What a reader makes of the parts of a pickle that lead outside of it. */
export interface PickleHost {
  /** A GLOBAL opcode. Throws PickleError for names that the reader does not allow. */
  global(name: string): unknown;
  /** A persistent id, such as a storage. */
  persistent(id: unknown): unknown;
  /** REDUCE or NEWOBJ: `callee(...args)`. */
  call(callee: unknown, args: readonly unknown[]): unknown;
  /** BUILD: gives an object its state. */
  build(target: unknown, state: unknown): void;
}

const MARK = Symbol('mark');
const utf8 = new TextDecoder('utf-8', { fatal: true });

const NAMES: Record<number, string> = { 0x69: 'INST', 0x6f: 'OBJ', 0x82: 'EXT1', 0x83: 'EXT2', 0x84: 'EXT4' };

/** Reads one pickle of protocol 2, as torch.save writes it. */
export class Unpickler {
  #at: number;
  readonly #view: DataView;
  #stack: unknown[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(
    readonly bytes: Uint8Array,
    start: number,
    readonly host: PickleHost,
  ) {
    this.#at = start;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Where the pickle ended. */
  get end(): number {
    return this.#at;
  }

  run(): unknown {
    for (;;) {
      const at = this.#at;
      const opcode = this.#byte();
      if (opcode === 0x2e) return this.#last(); // STOP
      const step = STEPS[opcode];
      if (step === undefined) {
        const name = NAMES[opcode] ?? `0x${opcode.toString(16)}`;
        throw new PickleError(`its pickle has the opcode ${name} at byte ${at}, which weight files do not need`);
      }
      step(this);
    }
  }

  #last(): unknown {
    const value = this.pop();
    if (this.#stack.length > 0) throw new PickleError('its pickle ends with values left over');
    return value;
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.bytes.length - at) throw new PickleEnded('its pickle ends too early');
    this.#at = at + length;
    return at;
  }

  #byte(): number {
    return this.bytes[this.#take(1)]!;
  }

  uint8 = (): number => this.#byte();
  uint16 = (): number => this.#view.getUint16(this.#take(2), true);
  uint32 = (): number => this.#view.getUint32(this.#take(4), true);
  int32 = (): number => this.#view.getInt32(this.#take(4), true);
  float64 = (): number => this.#view.getFloat64(this.#take(8), false);

  slice(length: number): Uint8Array {
    const at = this.#take(length);
    return this.bytes.subarray(at, at + length);
  }

  text(length: number): string {
    try {
      return utf8.decode(this.slice(length));
    } catch (error) {
      if (error instanceof PickleError) throw error;
      throw new PickleError('its pickle has a text that is not UTF-8');
    }
  }

  /** Two's complement, little-endian. */
  long(length: number): number | bigint {
    const bytes = this.slice(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    const signed = length > 0 ? BigInt.asIntN(8 * length, value) : 0n;
    return signed >= BigInt(Number.MIN_SAFE_INTEGER) && signed <= BigInt(Number.MAX_SAFE_INTEGER)
      ? Number(signed)
      : signed;
  }

  line(): string {
    const end = this.bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw new PickleEnded('its pickle ends too early');
    const text = this.text(end - this.#at);
    this.#at = end + 1;
    return text;
  }

  push(value: unknown): void {
    this.#stack.push(value);
  }

  pop(): unknown {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK)
      throw new PickleError('its pickle takes more from its stack than is there');
    return value;
  }

  top(): unknown {
    const value = this.#stack.at(-1);
    if (value === undefined || value === MARK)
      throw new PickleError('its pickle takes more from its stack than is there');
    return value;
  }

  mark(): void {
    this.#stack.push(MARK);
  }

  toMark(): unknown[] {
    const at = this.#stack.lastIndexOf(MARK);
    if (at < 0) throw new PickleError('its pickle lacks a mark');
    const items = this.#stack.splice(at + 1);
    this.#stack.pop();
    return items;
  }

  remember(index: number): void {
    this.#memo.set(index, this.top());
  }

  recall(index: number): void {
    if (!this.#memo.has(index))
      throw new PickleError(`its pickle asks for number ${index} of its memo, which is empty`);
    this.push(this.#memo.get(index));
  }

  tuple(count: number): void {
    const items = Array.from({ length: count }, () => this.pop()).reverse();
    this.push(new Tuple(items));
  }

  call(): void {
    const args = this.pop();
    const callee = this.pop();
    if (!(args instanceof Tuple)) throw new PickleError('its pickle calls something without a tuple of arguments');
    this.push(this.host.call(callee, args.items));
  }

  /** Lists and dicts take items; what goes into an inert record is of no interest. */
  append(items: unknown[]): void {
    const target = this.top();
    if (Array.isArray(target)) for (const item of items) target.push(item);
    else if (!(target instanceof InertRecord)) throw new PickleError('its pickle appends to what is no list');
  }

  setItems(items: unknown[]): void {
    const target = this.top();
    if (items.length % 2 !== 0) throw new PickleError('its pickle has a key without a value');
    if (target instanceof InertRecord) return;
    if (!(target instanceof Dict)) throw new PickleError('its pickle sets an item of what is no dict');
    for (let i = 0; i < items.length; i += 2) target.entries.set(items[i], items[i + 1]);
  }
}

/** None, which is a value unlike an empty stack. */
export const NONE = null;

type Step = (u: Unpickler) => void;

const STEPS: Partial<Record<number, Step>> = {
  0x80: (u) => {
    const protocol = u.uint8();
    if (protocol !== 2) throw new PickleError(`its pickle has protocol ${protocol} instead of 2`);
  },
  0x28: (u) => u.mark(),
  0x7d: (u) => u.push(new Dict()),
  0x5d: (u) => u.push([]),
  0x29: (u) => u.push(new Tuple([])),
  0x74: (u) => u.push(new Tuple(u.toMark())),
  0x85: (u) => u.tuple(1),
  0x86: (u) => u.tuple(2),
  0x87: (u) => u.tuple(3),
  0x71: (u) => u.remember(u.uint8()), // BINPUT
  0x72: (u) => u.remember(u.uint32()), // LONG_BINPUT
  0x68: (u) => u.recall(u.uint8()), // BINGET
  0x6a: (u) => u.recall(u.uint32()), // LONG_BINGET
  0x58: (u) => u.push(u.text(u.uint32())), // BINUNICODE
  0x4a: (u) => u.push(u.int32()), // BININT
  0x4b: (u) => u.push(u.uint8()), // BININT1
  0x4d: (u) => u.push(u.uint16()), // BININT2
  0x8a: (u) => u.push(u.long(u.uint8())), // LONG1
  0x47: (u) => u.push(u.float64()), // BINFLOAT
  0x4e: (u) => u.push(NONE),
  0x88: (u) => u.push(true),
  0x89: (u) => u.push(false),
  0x63: (u) => u.push(u.host.global(`${u.line()}.${u.line()}`)), // GLOBAL
  0x51: (u) => u.push(u.host.persistent(u.pop())), // BINPERSID
  0x52: (u) => u.call(), // REDUCE
  0x81: (u) => u.call(), // NEWOBJ
  0x62: (u) => {
    const state = u.pop(); // BUILD
    u.host.build(u.top(), state);
  },
  0x61: (u) => {
    const item = u.pop(); // APPEND
    u.append([item]);
  },
  0x65: (u) => u.append(u.toMark()), // APPENDS
  0x73: (u) => {
    const [value, key] = [u.pop(), u.pop()]; // SETITEM
    u.setItems([key, value]);
  },
  0x75: (u) => u.setItems(u.toMark()), // SETITEMS
};
