import { readFileSync } from 'node:fs';
import { CellcamError, messageOf } from '../errors';

/** One stain of a field: a grey image file and how its values are normalised. */
export interface ChannelSpec {
  /** Unique name, such as `red`. */
  name: string;
  /** What stands for `{channel}` in the names of the files. Default: the name. */
  suffix: string;
  /** Mean and standard deviation of the values in [0, 1], taken off and divided by before the network. */
  mean: number;
  std: number;
}

/** All that is particular to a data set; nothing else in cellcam knows a number of classes or channels. */
export interface DatasetSpec {
  /** Class names in index order; they are the one-hot columns of the tables. */
  classes: string[];
  /** Index of the class that means "no location", or null if there is none. */
  negativeClass: number | null;
  /** In the order in which they are stacked, dumped and shown to the network. */
  channels: ChannelSpec[];
  /** Names of a field's files, with `{id}` and `{channel}` once each; PNG, TIFF or JPEG by what they hold. Default: FILE_PATTERN. */
  filePattern?: string;
  /** Names of the channels that show nuclei and cell bodies. */
  nucleusChannel: string;
  cellChannels: string[];
}

function channel(name: string, mean: number, std: number): ChannelSpec {
  return { name, suffix: name, mean, std };
}

export const FILE_PATTERN = '{id}_{channel}.png';

/** The Human Protein Atlas single-cell classification data: 19 locations; microtubules, protein, nucleus, ER. */
export const HPA: DatasetSpec = {
  classes: [
    'Nucleoplasm',
    'Nuclear membrane',
    'Nucleoli',
    'Nucleoli fibrillar center',
    'Nuclear speckles',
    'Nuclear bodies',
    'Endoplasmic reticulum',
    'Golgi apparatus',
    'Intermediate filaments',
    'Actin filaments',
    'Microtubules',
    'Mitotic spindle',
    'Centrosome',
    'Plasma membrane',
    'Mitochondria',
    'Aggresome',
    'Cytosol',
    'Vesicles and punctate cytosolic patterns',
    'Negative',
  ],
  negativeClass: 18,
  channels: [
    channel('red', 0.485, 0.229),
    channel('green', 0.456, 0.224),
    channel('blue', 0.406, 0.225),
    channel('yellow', 0.485, 0.229),
  ],
  filePattern: FILE_PATTERN,
  nucleusChannel: 'blue',
  cellChannels: ['red', 'yellow'],
};

function check(condition: boolean, where: string, expected: string): asserts condition {
  if (!condition) throw new CellcamError('ERR_INVALID_ARG', `Expected ${expected} in ${where}`);
}

function checkChannel(value: unknown, where: string): ChannelSpec {
  const c = (typeof value === 'string' ? { name: value } : value) as Partial<ChannelSpec> | null;
  check(typeof c === 'object' && c !== null && typeof c.name === 'string' && c.name !== '', where, 'a channel name');
  const { name, suffix = c.name, mean = 0.5, std = 0.25 } = c;
  check(typeof suffix === 'string' && /^[^/\\]+$/.test(suffix), where, `a file suffix for channel ${name}`);
  check(typeof mean === 'number' && Number.isFinite(mean), where, `a finite mean for channel ${name}`);
  check(typeof std === 'number' && std > 0 && Number.isFinite(std), where, `a positive std for channel ${name}`);
  return { name: c.name, suffix, mean, std };
}

function isListOfNames(value: unknown): value is string[] {
  return (
    Array.isArray(value) &&
    value.every((v) => typeof v === 'string' && v !== '') &&
    new Set(value).size === value.length
  );
}

/** @throws CellcamError ERR_INVALID_ARG */
export function checkFilePattern(value: unknown, where = 'filePattern'): string {
  const once = (part: string): boolean => typeof value === 'string' && value.split(part).length === 2;
  check(
    typeof value === 'string' && once('{id}') && once('{channel}') && !/[/\\]/.test(value),
    where,
    "a file name with {id} and {channel} once each, such as '{id}_{channel}.tif',",
  );
  return value;
}

/**
 * Checks a specification and fills in what was left out.
 * @param value a whole DatasetSpec, or parts of one: `classes` and `channels` are needed; `negativeClass` is null if absent,
 *   `filePattern` `{id}_{channel}.png`, `nucleusChannel` and `cellChannels` default to the first channel and to all others
 * @param where what to call it in an error
 * @throws CellcamError ERR_INVALID_ARG
 */
export function datasetSpec(value: unknown = HPA, where = 'spec'): DatasetSpec {
  if (value === HPA) return HPA;
  check(typeof value === 'object' && value !== null, where, 'an object with classes and channels');
  const given = value as Record<keyof DatasetSpec, unknown>;
  check(isListOfNames(given.classes) && given.classes.length >= 2, where, 'classes: at least two different names');
  check(Array.isArray(given.channels) && given.channels.length >= 1, where, 'channels: at least one');
  const classes = given.classes;
  const channels = given.channels.map((c) => checkChannel(c, where));
  const names = channels.map((c) => c.name);
  check(isListOfNames(names), where, 'different channel names');
  const negative = given.negativeClass ?? null;
  check(
    negative === null ||
      (Number.isInteger(negative) && (negative as number) >= 0 && (negative as number) < classes.length),
    where,
    `negativeClass: null or a class index from 0 to ${classes.length - 1}`,
  );
  const nucleusChannel = given.nucleusChannel ?? names[0];
  const cellChannels = given.cellChannels ?? names.filter((n) => n !== nucleusChannel);
  check(names.includes(nucleusChannel as string), where, `nucleusChannel: one of ${names.join(', ')}`);
  check(
    isListOfNames(cellChannels) && cellChannels.every((n) => names.includes(n)),
    where,
    `cellChannels: some of ${names.join(', ')}`,
  );
  return {
    classes,
    negativeClass: negative as number | null,
    channels,
    filePattern: checkFilePattern(given.filePattern ?? FILE_PATTERN, where),
    nucleusChannel: nucleusChannel as string,
    cellChannels,
  };
}

/** Reads a specification from a JSON file. */
export function readDatasetSpec(path: string): DatasetSpec {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected a JSON data set specification in ${path}: ${messageOf(error)}`,
      {
        cause: error,
      },
    );
  }
  return datasetSpec(parsed, path);
}
