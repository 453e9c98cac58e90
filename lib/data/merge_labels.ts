import { resolve } from 'node:path';
import { CellcamError } from '../errors';
import { invalidArgument, requireBoolean, requireString } from '../options';
import { CsvTable } from './csv_table';
import { type DatasetSpec, datasetSpec, HPA } from './dataset_spec';
import {
  concatTables,
  type LabelScan,
  type LabelTable,
  openLabels,
  scanLabels,
  selectRows,
  writeLabels,
} from './labels';

/** What `mergeLabels` takes: at least one of `trainCsv` and `external`. */
export interface MergeOptions {
  /** The table to write; none of the inputs. */
  output: string;
  /** Kaggle's train.csv, or any other table of labels; its column ext is kept, `default` where absent. */
  trainCsv?: string | undefined;
  /** Tables of public images; their ext becomes `external`. */
  external?: readonly string[] | undefined;
  /** A table whose IDs are left out. */
  holdout?: string | undefined;
  /** Whose classes; default: HPA. */
  spec?: DatasetSpec | undefined;
  /** Leave out rows without a label instead of refusing their table; default false. */
  skipUnlabelled?: boolean | undefined;
}

/** What became of the rows of one input: `kept` and the reasons to leave rows out add up to `rows`. */
export interface MergedInput {
  path: string;
  rows: number;
  kept: number;
  unlabelled: number;
  /** Marked in_trainset in an external table while there is a train.csv, which has these images under other IDs. */
  inTrainSet: number;
  /** IDs that were there before in the same table. */
  repeated: number;
  /** IDs of the holdout table. */
  heldOut: number;
  /** IDs that an earlier table has. */
  inEarlier: number;
}

/** What `mergeLabels` wrote. */
export interface MergeResult {
  output: string;
  images: number;
  /** In the order of the rows. */
  inputs: MergedInput[];
}

interface Source {
  path: string;
  ext?: 'external';
  skipTrainSet: boolean;
}

interface MergePlan {
  output: string;
  sources: Source[];
  holdout: string | undefined;
  spec: DatasetSpec;
  skipUnlabelled: boolean;
}

function sourcesOf({ trainCsv, external }: MergeOptions): Source[] {
  if (external !== undefined && !Array.isArray(external))
    throw invalidArgument('an array of paths', 'external', external);
  const first = trainCsv === undefined ? [] : [{ path: requireString(trainCsv, 'trainCsv'), skipTrainSet: false }];
  const others = (external ?? []).map((path: unknown, i) => ({
    path: requireString(path, `external[${i}]`),
    ext: 'external' as const,
    skipTrainSet: trainCsv !== undefined,
  }));
  if (first.length + others.length > 0) return [...first, ...others];
  throw new CellcamError('ERR_INVALID_ARG', 'Expected a table for trainCsv or external but received none');
}

function mergePlan(o: MergeOptions): MergePlan {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const sources = sourcesOf(o);
  const output = requireString(o.output, 'output');
  const holdout = o.holdout === undefined ? undefined : requireString(o.holdout, 'holdout');
  const inputs = [...sources.map(({ path }) => path), ...(holdout === undefined ? [] : [holdout])];
  if (inputs.some((path) => resolve(path) === resolve(output)))
    throw invalidArgument('none of the inputs', 'output', output);
  const skipUnlabelled = requireBoolean(o.skipUnlabelled ?? false, 'skipUnlabelled');
  return { output, sources, holdout, spec: datasetSpec(o.spec ?? HPA), skipUnlabelled };
}

/** The rows to keep, whose IDs become known. */
function keep({ table, ...left }: LabelScan, known: Set<string>, held: ReadonlySet<string>): [LabelTable, MergedInput] {
  const free = table.ids.flatMap((id, row) => (held.has(id) ? [] : [row]));
  const rows = free.filter((row) => !known.has(table.ids[row]!));
  for (const row of rows) known.add(table.ids[row]!);
  const heldOut = table.ids.length - free.length;
  const counts = { ...left, kept: rows.length, heldOut, inEarlier: free.length - rows.length };
  return [selectRows(table, rows), { path: table.path, ...counts }];
}

/**
 * Merges Kaggle's train.csv and tables of public images into one table in the Python original's layout: ID, Label
 * (`[8, 5, 0]`), ext and one 0/1 column a class. Rows keep the order of the inputs; of an ID in several the first counts.
 * @throws CellcamError ERR_INVALID_ARG; ERR_FILE_NOT_FOUND; ERR_TABLE with file and line; ERR_WRITE, and nothing is written
 */
export function mergeLabels(options: MergeOptions): MergeResult {
  const { output, sources, holdout, spec, skipUnlabelled } = mergePlan(options);
  const held = new Set(holdout === undefined ? [] : new CsvTable(holdout, ['ID']).ids());
  const known = new Set<string>();
  const kept = sources.map(({ path, ...o }) =>
    keep(scanLabels(openLabels(path), { ...o, spec, skipUnlabelled }), known, held),
  );
  const merged = kept.map(([table]) => table).reduce(concatTables);
  if (merged.ids.length === 0) {
    throw new CellcamError('ERR_TABLE', `Expected an image to keep in ${merged.path} but all rows were left out`);
  }
  writeLabels(output, merged, spec);
  return { output, images: merged.ids.length, inputs: kept.map(([, input]) => input) };
}
