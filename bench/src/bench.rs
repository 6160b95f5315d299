//! What a whole run shares: the options, the layout of the cores, the binaries it may start, and who takes part.

use std::cell::OnceCell;
use std::env;
use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::certificate::Certificate;
use crate::cli::Options;
use crate::cores::Cores;
use crate::peer::{Contender, Program};
use crate::process;
use crate::report::{END, Table, replaced};

/// Files kept free for all that is not a waiting caller.
const SPARE_FILES: u64 = 500;
/// Of load per measurement.
const SECONDS: u32 = 3;

/// One run of the tool.
#[derive(Debug)]
pub(crate) struct Bench {
    /// Who runs on which core.
    pub(crate) cores: Cores,
    /// This very program, for its hidden subcommands.
    pub(crate) own_binary: PathBuf,
    options: Options,
    open_files: u64,
    certificate: OnceCell<Certificate>,
}

impl Bench {
    /// Pins the calling thread and raises the open-file limit: call it before the runtime starts.
    pub(crate) fn new(options: Options) -> Result<Self> {
        let open_files = process::raise_open_files()?;
        let cores = Cores::claim()?;
        eprintln!("layout: {cores}; open files: {open_files}");
        Ok(Self {
            cores,
            own_binary: env::current_exe()?,
            options,
            open_files,
            certificate: OnceCell::new(),
        })
    }

    /// Rounds over all peers, `default` unless the command line says otherwise.
    pub(crate) fn rounds(&self, default: u32) -> u32 {
        self.options
            .rounds
            .unwrap_or(if self.options.quick { 1 } else { default })
    }

    /// Seconds of load per measurement.
    pub(crate) fn seconds(&self) -> u32 {
        self.seconds_or(SECONDS)
    }

    /// The same for a table whose `default` is not that of the others.
    pub(crate) fn seconds_or(&self, default: u32) -> u32 {
        self.options.seconds.unwrap_or(default)
    }

    /// Prints tables, and writes them to the place called `name` in the file that the command line names.
    ///
    /// # Errors
    ///
    /// That file cannot be read or written, or has no such place. The tables have been printed then.
    pub(crate) fn publish(&self, name: &str, tables: &[Table]) -> Result<()> {
        let text: String = tables.iter().map(|table| format!("{table}\n")).collect();
        print!("{text}");
        if let Some(path) = &self.options.write {
            let at = |error: &dyn Display| format!("{}: {error}", path.display());
            let document = fs::read_to_string(path).map_err(|error| at(&error))?;
            let document = replaced(&document, name, &text)
                .ok_or_else(|| at(&format!("no place `<!-- bench {name} -->` to `{END}`")))?;
            fs::write(path, document).map_err(|error| at(&error))?;
        }
        Ok(())
    }

    /// Whether only a glance is wanted.
    pub(crate) fn quick(&self) -> bool {
        self.options.quick
    }

    /// How many of `wanted` connections the open-file limit allows.
    pub(crate) fn affordable(&self, wanted: usize) -> usize {
        usize::try_from(self.open_files.saturating_sub(SPARE_FILES))
            .unwrap_or(usize::MAX)
            .min(wanted)
    }

    /// The certificate of origins that speak TLS, made when it is first asked for.
    pub(crate) fn certificate(&self) -> Result<&Certificate> {
        if let Some(certificate) = self.certificate.get() {
            return Ok(certificate);
        }
        let made = Certificate::new()?;
        Ok(self.certificate.get_or_init(|| made))
    }

    /// The contenders that take part: chosen by `--peers` and installed. The others are named under the table.
    ///
    /// # Errors
    /// When pacegate should take part and has not been built, or nobody is left.
    pub(crate) fn choose(
        &self,
        contenders: &[Contender],
        table: &mut Table,
    ) -> Result<Vec<Contender>> {
        let mut chosen = Vec::new();
        for contender in contenders {
            if !self.wanted(contender) {
                table.note(format!("{}: left out (not among --peers)", contender.name));
            } else if contender.program == Program::Pacegate
                || self.binary(contender.program).is_some()
            {
                chosen.push(*contender);
            } else {
                table.note(format!("{}: left out (not installed)", contender.name));
            }
        }
        if chosen
            .iter()
            .any(|contender| contender.program == Program::Pacegate)
        {
            self.require_pacegate()?;
        }
        if chosen.is_empty() {
            return Err("none of the peers of this table takes part".into());
        }
        table.note(format!("{}; made by `{}`", self.cores, command_line()));
        Ok(chosen)
    }

    /// The executable of a program, none if it is not installed.
    pub(crate) fn binary(&self, program: Program) -> Option<PathBuf> {
        match program {
            Program::Direct | Program::UntilReady => Some(self.own_binary.clone()),
            Program::Nginx => installed("nginx"),
            Program::Haproxy => installed("haproxy"),
            Program::Pacegate => Some(self.pacegate()),
        }
    }

    /// Whether `--peers` names it, or nobody.
    pub(crate) fn named(&self, contender: &Contender) -> bool {
        let named = |name: &String| {
            contender
                .name
                .strip_prefix(name.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        self.options.peers.is_empty() || self.options.peers.iter().any(named)
    }

    /// Without the direct way there is nothing to compare latencies with.
    fn wanted(&self, contender: &Contender) -> bool {
        contender.program == Program::Direct || self.named(contender)
    }

    fn pacegate(&self) -> PathBuf {
        let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/pacegate");
        let path = self.options.pacegate.clone().unwrap_or_else(built);
        // Peers run in a directory of their own: the path must not depend on ours.
        std::path::absolute(&path).unwrap_or(path)
    }

    fn require_pacegate(&self) -> Result<()> {
        let path = self.pacegate();
        if path.is_file() {
            return Ok(());
        }
        let hint = "hint: build it with `cargo build --release`, or name it with `--pacegate PATH`";
        Err(format!("no binary at `{}`\n{hint}", path.display()).into())
    }
}

/// Where a program of the system is, looking in the places of daemons too.
pub(crate) fn installed(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")]);
    places
        .map(|place| place.join(name))
        .find(|candidate| candidate.is_file())
}

fn command_line() -> String {
    let arguments = env::args().skip(1).collect::<Vec<_>>();
    format!("cargo run --release -p bench -- {}", arguments.join(" "))
}
