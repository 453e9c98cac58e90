#!/usr/bin/env node
// Runs at npm install: finds or fetches LibTorch and builds the addon. Never fails: without an addon the package
// installs all the same, and its first use throws ERR_NATIVE_MISSING with what is recorded here.
import { existsSync } from 'node:fs';
import { ADDON, isUpToDate, writeRecord } from './build_record.mjs';
import { buildAddon } from './build.mjs';
import { ensureLibtorch } from './libtorch.mjs';

function skip() {
  console.log('cellcam: CELLCAM_SKIP_BUILD is set; the addon is not built');
  if (!existsSync(ADDON)) writeRecord({ error: 'CELLCAM_SKIP_BUILD was set during npm install' });
}

async function install() {
  const libtorch = await ensureLibtorch();
  if (isUpToDate(libtorch)) return console.log(`cellcam: the addon is up to date with LibTorch ${libtorch.version}`);
  try {
    await buildAddon(libtorch);
  } catch (error) {
    throw Object.assign(error, { attempts: libtorch.attempts });
  }
  console.log(`cellcam: built against LibTorch ${libtorch.version} (${libtorch.variant}) in ${libtorch.dir}`);
}

function warn(error) {
  console.error(`\ncellcam: WARNING: installed without its native addon, which it needs to train and predict.`);
  console.error(`${error.message}\nWhat to do: see docs/install.md, then run: npm rebuild cellcam\n`);
  writeRecord({ error: error.reason ?? error.message, attempts: error.attempts ?? [] });
}

if (process.env.CELLCAM_SKIP_BUILD === '1') skip();
else await install().catch(warn);
