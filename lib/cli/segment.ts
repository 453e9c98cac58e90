import { Command, Option } from 'commander';
import type { SegmenterOptions } from '../cells/segmenter';
import { CellcamError } from '../errors';
import { MASK_FORMATS, segmentFields, type SegmentFieldsOptions } from '../inference/segment_fields';
import {
  commonOptions,
  deviceOptions,
  numeric,
  segmenterOf,
  segmenterOptions,
  specOf,
  type SegmenterArguments,
} from './arguments';
import { Progress } from './progress';

interface SegmentArguments extends SegmenterArguments, Omit<SegmentFieldsOptions, 'formats' | 'segmenter' | 'spec'> {
  format: SegmentFieldsOptions['formats'];
  spec?: string;
  json?: boolean;
}

async function run({ spec, json, format, ...o }: SegmentArguments, signal: AbortSignal): Promise<void> {
  const progress = new Progress({ json });
  const segmenter: SegmenterOptions = segmenterOf(o);
  try {
    const result = await segmentFields({
      ...o,
      formats: format,
      segmenter,
      spec: specOf(spec),
      signal,
      onProgress: ({ done, total, cells }) => progress.update('segment', done, total, 'fields', `${cells} cells`),
    });
    const { fields, cells, withoutCells, failed } = result;
    progress.line(`${o.output}: ${cells} cells in ${fields} fields, ${failed.length} refused`, {
      event: 'done',
      ...result,
    });
    for (const id of withoutCells) console.error(`no cells in ${id}`);
    for (const { id, reason } of failed) console.error(`refused ${id}: ${reason}`);
    if (failed.length > 0) {
      throw new CellcamError(
        'ERR_INCOMPLETE',
        `${failed.length} of the fields could not be segmented; the others are there`,
      );
    }
  } finally {
    progress.end();
  }
}

export function segmentCommand(signal: AbortSignal): Command {
  const command = new Command('segment')
    .description('find the cells of fields: label masks, QuPath GeoJSON, COCO')
    .requiredOption('--images-folder <folder>', 'holds <id>_red.png, _green.png, _blue.png and _yellow.png')
    .requiredOption('--output <folder>', 'where masks go, <id>.png')
    .addOption(new Option('--format <formats...>', 'what to write').choices([...MASK_FORMATS]).default(['png']))
    .option('--nuclei', 'also <id>_nuclei.png, with the numbers of the cells')
    .option('--overlay', 'also <id>_overlay.png: the field with outlines and numbers')
    .option('--original-size', "masks of the files' own size instead of --image-size")
    .option('--ids <ids...>', 'which fields (default: all)')
    .addOption(numeric('--image-size <pixels>', 'side at which cells are found', 512))
    .option('--file-pattern <name>', "names of the files (default: '{id}_{channel}.png'): grey PNG, TIFF or JPEG")
    .addOption(numeric('--workers <number>', 'fields in flight'));
  for (const option of [...segmenterOptions(), ...deviceOptions('fp32'), ...commonOptions()]) command.addOption(option);
  return command.action((o: SegmentArguments) => run(o, signal));
}
