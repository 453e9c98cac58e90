// From the objects of a torch.save pickle to tensors by name; nothing here reads storages.
import { Dict, Global, InertRecord, PickleError, Tuple, type PickleHost } from './pickle';
import { elements, type DType } from './tensors';

/** Numbers in a file that tensors are views of. */
export interface Storage {
  key: string;
  dtype: DType;
  /** Elements. */
  count: number;
}

/** A tensor as a view: offset and strides in elements. */
export class TensorView {
  constructor(
    readonly storage: Storage,
    readonly offset: number,
    readonly shape: number[],
    readonly strides: number[],
  ) {}
}

const STORAGES: Record<string, DType> = {
  'torch.DoubleStorage': 'float64',
  'torch.FloatStorage': 'float32',
  'torch.HalfStorage': 'float16',
  'torch.BFloat16Storage': 'bfloat16',
  'torch.LongStorage': 'int64',
  'torch.IntStorage': 'int32',
  'torch.ShortStorage': 'int16',
  'torch.CharStorage': 'int8',
  'torch.ByteStorage': 'uint8',
  'torch.BoolStorage': 'bool',
};

const ORDERED_DICT = 'collections.OrderedDict';
const REBUILD_TENSOR = 'torch._utils._rebuild_tensor_v2';
/** These wrap a tensor, their first argument. */
const REBUILD_PARAMETER = [
  'torch._utils._rebuild_parameter',
  'torch._utils._rebuild_parameter_with_state',
  'torch.nn.parameter.Parameter',
];
const SIZE = 'torch.Size';
const KNOWN = new Set([...Object.keys(STORAGES), ORDERED_DICT, REBUILD_TENSOR, ...REBUILD_PARAMETER, SIZE]);
const DATA_PARALLEL = 'torch.nn.parallel.data_parallel.DataParallel';

/** Bounds on what a file can make us walk through. */
const MAX_TENSORS = 1_000_000;
const MAX_DEPTH = 200;

function isInteger(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function integers(value: unknown, what: string): number[] {
  const items = value instanceof Tuple ? value.items : undefined;
  if (items === undefined || !items.every(isInteger)) throw new PickleError(`a tensor of it has no valid ${what}`);
  return [...items];
}

function rebuildTensor(args: readonly unknown[]): TensorView {
  const [storage, offset, size, stride] = args;
  if (!isStorage(storage)) throw new PickleError('a tensor of it has no storage');
  if (!isInteger(offset)) throw new PickleError('a tensor of it has no valid offset');
  const [shape, strides] = [integers(size, 'size'), integers(stride, 'stride')];
  if (shape.length !== strides.length) throw new PickleError('a tensor of it has not as many strides as dimensions');
  const count = elements(shape);
  if (count === undefined) throw new PickleError('a tensor of it has a size beyond all bounds');
  const last = shape.reduce((sum, n, i) => sum + (n - 1) * strides[i]!, offset);
  if (count > 0 && !(Number.isSafeInteger(last) && last < storage.count)) {
    throw new PickleError(`a tensor of it reaches outside its storage ${storage.key}`);
  }
  return new TensorView(storage, offset, shape, strides);
}

const storages = new WeakSet<object>();
function isStorage(value: unknown): value is Storage {
  return typeof value === 'object' && value !== null && storages.has(value);
}

/** How a file names its storages: ('storage', type, key, location, count) and, in the older format, a view. */
export interface StorageIds {
  legacy: boolean;
  found: Map<string, Storage>;
}

function storageOf(id: unknown, ids: StorageIds): Storage {
  const items = id instanceof Tuple ? id.items : [];
  const [kind, type, key, , count, view] = items;
  const dtype = type instanceof Global ? STORAGES[type.name] : undefined;
  const length = ids.legacy ? 6 : 5;
  if (
    kind !== 'storage' ||
    items.length !== length ||
    dtype === undefined ||
    typeof key !== 'string' ||
    !isInteger(count)
  ) {
    throw new PickleError('it has a storage that is not described as one');
  }
  if (ids.legacy && view !== null)
    throw new PickleError(`its storage ${key} is a view of another, which no current file has`);
  const known = ids.found.get(key);
  if (known) {
    if (known.dtype !== dtype || known.count !== count)
      throw new PickleError(`its storage ${key} is described in two ways`);
    return known;
  }
  const storage = { key, dtype, count };
  storages.add(storage);
  ids.found.set(key, storage);
  return storage;
}

/** What state dicts are made of, and nothing else: any other class or function is refused by name. */
class StateDictHost implements PickleHost {
  constructor(protected readonly ids: StorageIds) {}

  global(name: string): unknown {
    if (KNOWN.has(name)) return new Global(name);
    throw new PickleError(`its pickle asks for ${name}, which is not one of the few things that tensors are made of`);
  }

  persistent(id: unknown): unknown {
    return storageOf(id, this.ids);
  }

  call(callee: unknown, args: readonly unknown[]): unknown {
    const name = callee instanceof Global ? callee.name : undefined;
    if (name === ORDERED_DICT && args.length === 0) return new Dict();
    if (name === REBUILD_TENSOR) return rebuildTensor(args);
    if (name === SIZE && args[0] instanceof Tuple) return args[0];
    if (name !== undefined && REBUILD_PARAMETER.includes(name)) return this.parameter(args[0]);
    throw new PickleError(`its pickle calls ${name ?? 'something that is no function'}`);
  }

  protected parameter(value: unknown): unknown {
    if (value instanceof TensorView) return value;
    throw new PickleError('a parameter of it is no tensor');
  }

  build(target: unknown, _state: unknown): void {
    // A state dict's `_metadata`, a parameter's hooks: not needed.
    if (!(target instanceof Dict || target instanceof TensorView)) {
      throw new PickleError('its pickle sets the state of an object, which state dicts do not have');
    }
  }
}

/** Also takes whole modules: classes and calls that are not known become inert records. */
class WholeModuleHost extends StateDictHost {
  override global(name: string): unknown {
    return new Global(name);
  }

  override persistent(id: unknown): unknown {
    const items = id instanceof Tuple ? id.items : [];
    if (this.ids.legacy && items[0] === 'module' && items[1] instanceof Global) return items[1]; // with its source text
    return super.persistent(id);
  }

  override call(callee: unknown, args: readonly unknown[]): unknown {
    if (callee instanceof Global && !KNOWN.has(callee.name)) return new InertRecord(callee, args);
    return super.call(callee, args);
  }

  protected override parameter(value: unknown): unknown {
    return value instanceof TensorView ? value : new InertRecord(new Global(REBUILD_PARAMETER[0]!), [value]);
  }

  override build(target: unknown, state: unknown): void {
    if (target instanceof InertRecord) target.state = state;
  }
}

export function hostOf(ids: StorageIds, wholeModule: boolean): PickleHost {
  return wholeModule ? new WholeModuleHost(ids) : new StateDictHost(ids);
}

function isModule(value: unknown): value is InertRecord {
  return value instanceof InertRecord && value.state instanceof Dict && value.state.entries.has('_modules');
}

function dictOf(module: InertRecord, name: string, path: string): Map<unknown, unknown> {
  const found = (module.state as Dict).entries.get(name);
  if (found instanceof Dict) return found.entries;
  throw new PickleError(`its module '${path}' has no ${name}`);
}

/** Gathers tensors in the order of `state_dict()`. */
class ModuleWalk {
  readonly tensors = new Map<string, TensorView>();
  #visited = 0;

  walk(module: InertRecord, prefix: string, above: InertRecord[]): void {
    if (above.includes(module)) throw new PickleError(`its module '${prefix}' holds itself`);
    if (above.length > MAX_DEPTH || ++this.#visited > MAX_TENSORS)
      throw new PickleError('it has too many modules within modules');
    this.#own(module, prefix);
    for (const [name, part] of dictOf(module, '_modules', prefix)) {
      if (part === null) continue;
      if (!isModule(part)) throw new PickleError(`'${prefix}${String(name)}' of it is no module`);
      this.walk(part, `${prefix}${String(name)}.`, [...above, module]);
    }
  }

  #own(module: InertRecord, prefix: string): void {
    const passing = (module.state as Dict).entries.get('_non_persistent_buffers_set');
    for (const kind of ['_parameters', '_buffers']) {
      for (const [name, value] of dictOf(module, kind, prefix)) {
        if (value === null || (kind === '_buffers' && holds(passing, name))) continue;
        addTensor(this.tensors, `${prefix}${String(name)}`, value);
      }
    }
  }
}

/** A pickled set is a call of `set` with a list. */
function holds(set: unknown, name: unknown): boolean {
  const items = set instanceof InertRecord ? set.args[0] : undefined;
  return Array.isArray(items) && items.includes(name);
}

function addTensor(tensors: Map<string, TensorView>, name: string, value: unknown): void {
  if (!(value instanceof TensorView)) throw new PickleError(`'${name}' of it is no tensor`);
  if (tensors.size >= MAX_TENSORS) throw new PickleError(`it has more than ${MAX_TENSORS} tensors`);
  tensors.set(name, value);
}

function stateDict(root: Dict): Map<string, TensorView> {
  const tensors = new Map<string, TensorView>();
  for (const [name, value] of root.entries) {
    if (typeof name !== 'string') throw new PickleError('a key of it is no text');
    addTensor(tensors, name, value);
  }
  return tensors;
}

/** The state dict itself, or the one that a training script put under this name. */
function findStateDict(root: unknown): Dict | undefined {
  const inner = root instanceof Dict ? root.entries.get('state_dict') : undefined;
  return inner instanceof Dict ? inner : root instanceof Dict ? root : undefined;
}

function withoutPrefix(tensors: Map<string, TensorView>, prefix: string): Map<string, TensorView> {
  const all = tensors.size > 0 && [...tensors.keys()].every((name) => name.startsWith(prefix));
  return all ? new Map([...tensors].map(([name, tensor]) => [name.slice(prefix.length), tensor])) : tensors;
}

/** The tensors of what a file holds, by name, without DataParallel's `module.`. @throws PickleError */
export function tensorsOf(root: unknown, wholeModule: boolean): Map<string, TensorView> {
  const dict = findStateDict(root);
  if (dict) return withoutPrefix(stateDict(dict), 'module.');
  if (!wholeModule) throw new PickleError('it holds no dict of tensors');
  if (!isModule(root)) throw new PickleError('it holds neither a module nor a dict of tensors');
  const walk = new ModuleWalk();
  walk.walk(root, '', []);
  return root.type.name === DATA_PARALLEL ? withoutPrefix(walk.tensors, 'module.') : walk.tensors;
}
