#!/usr/bin/env node
import './thread_pool';
import { Command, CommanderError } from 'commander';
import { CellcamError, codeOf, messageOf } from '../errors';
import { VERSION } from '../version';
import { dashed } from './arguments';
import { backbonesCommand } from './backbones';
import { convertCommand } from './convert';
import { demoCommand } from './demo';
import { doctorCommand } from './doctor_command';
import { dumpCommand } from './dump';
import { evaluateCommand } from './evaluate';
import { inspectCommand } from './inspect';
import { labelsCommand } from './labels';
import { oofCommand } from './oof';
import { mergeCommand, predictCommand } from './predict';
import { previewCommand } from './preview';
import { reportCommand } from './report';
import { segmentCommand } from './segment';
import { trainCommand } from './train';

const INTERRUPTED = 130;

/** The first Ctrl-C lets the work save what it has; the second one ends it. */
function interruptible(command: string | undefined): AbortSignal {
  const goesOn = command === 'dump' || command === 'train' || command === 'predict';
  const kept = command === 'segment' ? 'masks that were written stay' : 'nothing was written';
  const outcome = goesOn ? 'what was done is saved, and the same command goes on' : kept;
  const controller = new AbortController();
  const stop = (name: string) => (): void => {
    if (controller.signal.aborted) process.exit(INTERRUPTED);
    console.error(`\n${name}${goesOn ? ': saving' : ''}; once more ends at once`);
    controller.abort(new CellcamError('ERR_ABORTED', `interrupted; ${outcome}`));
  };
  process.on('SIGINT', stop('interrupted'));
  process.on('SIGTERM', stop('terminated'));
  return controller.signal;
}

function program(signal: AbortSignal): Command {
  const root = new Command('cellcam')
    .description('Per-cell protein localisation from image-level labels')
    .version(VERSION)
    .option('--debug', 'show the stack of an error')
    .exitOverride();
  for (const command of [
    dumpCommand(signal),
    trainCommand(signal),
    oofCommand(signal),
    predictCommand(signal),
    mergeCommand(),
    evaluateCommand(signal),
    reportCommand(),
    segmentCommand(signal),
    labelsCommand(),
    inspectCommand(signal),
    previewCommand(),
    convertCommand(),
    backbonesCommand(),
    doctorCommand(),
    demoCommand(signal),
  ]) {
    root.addCommand(command.option('--debug', 'show the stack of an error').exitOverride());
  }
  return root;
}

function exitCode(error: unknown, signal: AbortSignal): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
  if (signal.aborted) return INTERRUPTED;
  return codeOf(error) === 'ERR_INVALID_ARG' ? 2 : 1;
}

async function main(): Promise<void> {
  const argv = dashed(process.argv.slice(2));
  const signal = interruptible(argv[0]);
  try {
    await program(signal).parseAsync(argv, { from: 'user' });
  } catch (error) {
    process.exitCode = exitCode(error, signal);
    if (error instanceof CommanderError) return; // commander has said it
    const text = argv.includes('--debug') && error instanceof Error ? error.stack : messageOf(error);
    console.error(`cellcam: ${text}`);
  }
  // Nothing is left to do; handlers for signals must not keep the process.
  process.removeAllListeners('SIGINT');
  process.removeAllListeners('SIGTERM');
}

void main();
