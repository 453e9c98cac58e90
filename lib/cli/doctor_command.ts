import { Command } from 'commander';
import { doctor, formatDoctor } from './doctor';

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('show versions, devices and LibTorch, and whether all is well')
    .option('--json', 'as JSON')
    .action(async (o: { json?: boolean }) => {
      const report = await doctor();
      console.log(o.json ? JSON.stringify(report, null, 2) : formatDoctor(report));
      if (!report.ok) process.exitCode = 1;
    });
}
