import { CsvTable } from './csv_table';
import type { DatasetSpec } from './dataset_spec';
import { type LabelBalance, listing, type TableReport, tally } from './inspect_report';
import { type LabelScan, scanLabels, scanSizes } from './labels';

function balance({ table, unlabelled }: LabelScan, spec: DatasetSpec): LabelBalance {
  const { ids, labels, ext, lists } = table;
  const counts = new Array<number>(spec.classes.length).fill(0);
  labels.data.forEach((label, i) => (counts[i % counts.length]! += label));
  const classes = spec.classes.map((name, c) => ({ name, count: counts[c]!, share: counts[c]! / (ids.length || 1) }));
  return {
    classes,
    absent: classes.filter(({ count }) => count === 0).map(({ name }) => name),
    perImage: tally(lists.map((list) => new Set(list).size)),
    ext: tally(ext),
    unlabelled,
  };
}

function repeatedIds(ids: readonly string[]): string[] {
  const seen = new Set<string>();
  const repeated = new Set<string>();
  for (const id of ids) (seen.has(id) ? repeated : seen).add(id);
  return [...repeated];
}

/** @throws CellcamError ERR_FILE_NOT_FOUND; ERR_TABLE with file and line */
export function inspectTable(path: string, spec: DatasetSpec): { report: TableReport; ids: Set<string> } {
  const csv = new CsvTable(path, ['ID']);
  const all = csv.ids();
  const ids = new Set(all);
  const report: TableReport = {
    kind: 'table',
    path,
    rows: all.length,
    columns: csv.header,
    images: ids.size,
    repeated: listing(repeatedIds(all)),
  };
  const has = (name: string) => csv.header.includes(name);
  if (has('Label')) report.labels = balance(scanLabels(csv, { spec, skipUnlabelled: true }), spec);
  if (has('ImageHeight') && has('ImageWidth')) {
    report.sizes = tally([...scanSizes(csv).values()].map(({ height, width }) => `${height} × ${width}`));
  }
  return { report, ids };
}
