import type { Inspection } from '../data/inspect';
import {
  type FileReport,
  type Hdf5Report,
  type IdComparison,
  type LabelBalance,
  type Listing,
  listing,
  type TableReport,
} from '../data/inspect_report';
import { alignColumns } from '../report/columns';

type Fact = [name: string, value: string];

function bytesText(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(Math.floor(Math.log2(bytes || 1) / 10), units.length - 1);
  return `${power === 0 ? bytes : (bytes / 1024 ** power).toFixed(1)} ${units[power]}`;
}

/** `512 × 512 × 4: 10, 64 × 64 × 4: 2` */
function countsText(counts: Record<string, number>): string {
  const texts = Object.entries(counts).map(([value, count]) => `${value}: ${count}`);
  return texts.length > 0 ? texts.join(', ') : 'none';
}

/** `7 (a, b, c, d, e, …)` */
function listingText({ count, first }: Listing): string {
  if (count === 0) return '0';
  return `${count} (${first.join(', ')}${count > first.length ? ', …' : ''})`;
}

/** `2 groups: 3 (a, b, c); 2 (d, e)` */
function groupsText(groups: string[][]): string {
  const { count, first } = listing(groups);
  const texts = first.map((group) => listingText(listing(group)));
  return `${count} groups${count > 0 ? ': ' : ''}${texts.join('; ')}${count > first.length ? '; …' : ''}`;
}

/** Indented, the values below each other. */
function factLines(facts: Fact[]): string[] {
  const width = Math.max(...facts.map(([name]) => name.length)) + 2;
  return facts.map(([name, value]) => `  ${name.padEnd(width)}${value}`);
}

function hdf5Lines({ path, images, bytes, unreadable, identical, ...o }: Hdf5Report): string[] {
  const facts: Fact[] = [
    ['shapes', countsText(o.shapes)],
    ['dtypes', countsText(o.dtypes)],
    ['original sizes', countsText(o.originalSizes)],
    ['shards', String(o.shards)],
    ['missing shards', listingText(o.missingShards)],
    ['images in these', listingText(o.lost)],
    ...(identical ? [['same pixels', groupsText(identical)] satisfies Fact] : []),
    ['unreadable', String(unreadable.count)],
  ];
  const reasons = unreadable.first.map(({ id, reason }) => `    ${id}: ${reason}`);
  return [`${path}: HDF5, ${images} images, ${bytesText(bytes)} on disk`, ...factLines(facts), ...reasons];
}

/** The columns of classes, which the balance names, are only counted. */
function columnsText(columns: string[], labels: LabelBalance | undefined): string {
  const names = new Set(labels?.classes.map(({ name }) => name));
  const others = columns.filter((name) => !names.has(name));
  const own = columns.length - others.length;
  return [...others, ...(own > 0 ? [`${own} classes`] : [])].join(', ');
}

function labelFacts({ absent, perImage, ext, unlabelled }: LabelBalance): Fact[] {
  return [
    ['rows without a label', String(unlabelled)],
    ['ext', countsText(ext)],
    ['labels an image', countsText(perImage)],
    ['classes without an image', absent.length > 0 ? absent.join(', ') : 'none'],
  ];
}

function balanceLines({ classes }: LabelBalance): string[] {
  const rows = classes.map(({ name, count, share }) => [name, String(count), `${(100 * share).toFixed(2)} %`]);
  const lines = alignColumns([['class', 'images', 'share'], ...rows]).split('\n');
  return lines.map((line) => `  ${line}`);
}

function tableLines({ path, rows, columns, images, repeated, labels, sizes }: TableReport): string[] {
  const facts: Fact[] = [
    ['columns', columnsText(columns, labels)],
    ['IDs of several rows', listingText(repeated)],
    ...(sizes ? [['image sizes', countsText(sizes)] satisfies Fact] : []),
    ...(labels ? labelFacts(labels) : []),
  ];
  const head = `${path}: a table of ${rows} rows, ${images} different IDs`;
  return [head, ...factLines(facts), ...(labels ? balanceLines(labels) : [])];
}

function fileLines(report: FileReport): string[] {
  return report.kind === 'hdf5' ? hdf5Lines(report) : tableLines(report);
}

function comparisonLines({ a, b, both, onlyA, onlyB }: IdComparison): string[] {
  const facts: Fact[] = [
    ['in both', String(both)],
    [`only in ${a}`, listingText(onlyA)],
    [`only in ${b}`, listingText(onlyB)],
  ];
  return [`IDs of ${a} and ${b}`, ...factLines(facts)];
}

/** Aligned plain text, a paragraph for every file and every comparison. */
export function inspectionText({ files, comparisons }: Inspection): string {
  const parts = [...files.map(fileLines), ...comparisons.map(comparisonLines)];
  return parts.map((lines) => lines.join('\n')).join('\n\n');
}
