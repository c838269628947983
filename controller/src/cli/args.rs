//! The command line of `vmdsctl`: what can be typed. Nothing here does anything.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use super::mount_options::MountOptions;
use super::typed::{
    Bucket, Expiry, Receiver, TenantPath, parse_bucket, parse_credentials, parse_duration, parse_expiry,
    parse_kind, parse_mode, parse_receiver, parse_sla_class, parse_tenant_path,
};
use crate::config::DEFAULT_RUN_DIR;
use crate::resource::{ByteSize, CredentialsSpec, Kind, SlaClass};

/// Control VMDS: tenants, mounts, shares, pools.
#[derive(Debug, Parser)]
#[command(name = "vmdsctl", version, arg_required_else_help = true)]
pub(super) struct Arguments {
    /// Where the controller's socket is.
    #[arg(long, global = true, env = "VMDS_RUN_DIR", default_value = DEFAULT_RUN_DIR, value_name = "DIR")]
    pub run_dir: PathBuf,
    /// How results are written.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// How long to wait for something to come about, like 30s or 2m.
    #[arg(long, global = true, default_value = "30s", value_parser = parse_duration, value_name = "TIME")]
    pub timeout: Duration,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For files that are applied again.
    Yaml,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make, list and delete tenants.
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Mount a tenant's file system at a directory.
    Mount(MountArguments),
    /// Unmount a directory.
    Umount {
        /// The directory.
        dir: PathBuf,
        /// Detach it now, even if it is in use.
        #[arg(long)]
        lazy: bool,
    },
    /// Add, list and remove storage.
    #[command(subcommand)]
    Pool(PoolCommand),
    /// Share files and directories between tenants.
    #[command(subcommand)]
    Share(ShareCommand),
    /// Make objects of a bucket files of a tenant, without copying them.
    Import(ImportArguments),
    /// Say where a file really is.
    Locate {
        /// The file, like alpha:/data/train.csv.
        #[arg(value_name = "TENANT:/PATH", value_parser = parse_tenant_path)]
        file: TenantPath,
    },
    /// Show resources.
    Get {
        /// The kind, like tenants.
        #[arg(value_parser = parse_kind)]
        kind: Kind,
        /// Only the one of this name.
        name: Option<String>,
    },
    /// Make resources what a file says.
    Apply {
        /// YAML (any number of documents) or JSON; - is the standard input.
        #[arg(short, long, value_name = "FILE")]
        file: PathBuf,
        /// Wait until they are what they should be.
        #[arg(long)]
        wait: bool,
    },
    /// Delete a resource.
    Delete {
        /// The kind, like tenant.
        #[arg(value_parser = parse_kind)]
        kind: Kind,
        /// The name.
        name: String,
        /// A tenant: with all of its data, mounts and shares.
        #[arg(long)]
        purge: bool,
        /// A mount: even if it is in use.
        #[arg(long)]
        lazy: bool,
    },
    /// Show resources and then every change of them, until interrupted.
    Watch {
        /// The kind, like mounts.
        #[arg(value_parser = parse_kind)]
        kind: Kind,
        /// Only what changed after this version.
        #[arg(long, value_name = "VERSION")]
        from: Option<u64>,
    },
    /// Show the controller at a glance.
    Status,
    /// Look for contradictions in the address map; exits with 1 if there are any.
    Check {
        /// Only this tenant.
        tenant: Option<String>,
    },
    /// Write a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant.
    Create(TenantArguments),
    /// List tenants.
    List,
    /// Show all about a tenant.
    Show {
        /// Its name.
        name: String,
    },
    /// Replace the running VMDS of a tenant by the program as it is now; applications notice a short pause at most.
    Upgrade {
        /// Its name.
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// All tenants that are mounted, one after the other.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
    /// Delete a tenant.
    Delete {
        /// Its name.
        name: String,
        /// With all of its data, mounts and shares.
        #[arg(long)]
        purge: bool,
    },
}

/// A tenant to make.
#[derive(Debug, Args)]
pub(super) struct TenantArguments {
    /// Its name: lower-case letters, digits and '-'.
    pub name: String,
    /// The pool for its files [default: chosen by the controller].
    #[arg(long, conflicts_with = "sla_class")]
    pub pool: Option<String>,
    /// The kind of storage for its files.
    #[arg(long, value_parser = parse_sla_class, value_name = "shared|dedicated|high-security")]
    pub sla_class: Option<SlaClass>,
    /// Most bytes it may use, like 10GiB.
    #[arg(long, value_name = "BYTES")]
    pub quota_bytes: Option<ByteSize>,
    /// Most files and directories it may have.
    #[arg(long, value_name = "N")]
    pub quota_inodes: Option<u64>,
    /// Memory its VMDS may use on a node, like 256MiB.
    #[arg(long, value_name = "BYTES")]
    pub memory: Option<ByteSize>,
    /// A user who may mount it and share from it; the first one owns its root directory. Can be repeated.
    #[arg(long = "owner", value_name = "UID")]
    pub owners: Vec<u32>,
    /// Where shares from others appear, made of {owner}, {name} and {share}.
    #[arg(long, value_name = "TEMPLATE")]
    pub share_naming: Option<String>,
}

/// A mount to make.
#[derive(Debug, Args)]
pub(super) struct MountArguments {
    /// Whose file system.
    pub tenant: String,
    /// An existing directory.
    pub dir: PathBuf,
    /// Nothing can be changed through it.
    #[arg(long)]
    pub read_only: bool,
    /// No program can be run from it.
    #[arg(long)]
    pub noexec: bool,
    /// Reading leaves no access times.
    #[arg(long)]
    pub noatime: bool,
    /// Set-uid bits have their effect.
    #[arg(long)]
    pub suid: bool,
    /// Device nodes have their effect.
    #[arg(long)]
    pub dev: bool,
    /// The same and their opposites, as /etc/fstab has them, like ro,exec; with remount they change a mount in use.
    #[arg(long, value_name = "LIST", value_parser = |list: &str| MountOptions::parse(list, false))]
    pub options: Option<MountOptions>,
}

impl MountArguments {
    /// A mount with the tenant's own flags.
    pub(super) fn plain(tenant: String, dir: PathBuf) -> Self {
        let (read_only, noexec, noatime, suid, dev) = (false, false, false, false, false);
        Self { tenant, dir, read_only, noexec, noatime, suid, dev, options: None }
    }
}

/// What to do with pools.
#[derive(Debug, Subcommand)]
pub(super) enum PoolCommand {
    /// Add storage: a directory or a bucket.
    Add(Box<PoolArguments>),
    /// List pools.
    List,
    /// Show all about a pool.
    Show {
        /// Its name.
        name: String,
    },
    /// Stop using a pool. Its files stay where they are.
    Remove {
        /// Its name.
        name: String,
    },
    /// Compare a bucket with the address map, both ways, while both are in use; exits with 1 if they do not agree.
    Check {
        /// Its name.
        name: String,
        /// Objects that are younger are not taken for orphans.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_duration)]
        grace: Duration,
        /// Have the objects deleted that VMDS has made and nothing leads to.
        #[arg(long)]
        repair: bool,
    },
}

/// A pool to add.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("storage").required(true).args(["posix", "s3"])))]
pub(super) struct PoolArguments {
    /// Its name.
    pub name: String,
    /// A directory that is for VMDS alone.
    #[arg(long, value_name = "PATH")]
    pub posix: Option<PathBuf>,
    /// The host whose disk it is [default: this one].
    #[arg(long, requires = "posix")]
    pub host: Option<String>,
    /// A bucket, or what is below a prefix of one, that is for VMDS alone.
    #[arg(long, value_name = "BUCKET[/PREFIX]", value_parser = parse_bucket, requires = "credentials")]
    pub s3: Option<Bucket>,
    /// Where the bucket is, like http://store:9000 [default: Amazon's for the region].
    #[arg(long, value_name = "URL", requires = "s3")]
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    #[arg(long, requires = "s3")]
    pub region: Option<String>,
    /// The bucket is in the path, not in the host's name.
    #[arg(long, requires = "s3")]
    pub path_style: bool,
    /// Where the controller finds the credentials; they are never typed here.
    #[arg(long, value_name = "env|file:PATH[#PROFILE]|profile:NAME|imds", value_parser = parse_credentials, requires = "s3")]
    pub credentials: Option<CredentialsSpec>,
    /// A local directory for files that are being written [default: below the controller's state].
    #[arg(long, value_name = "DIR", requires = "s3")]
    pub staging: Option<PathBuf>,
    /// Certificates (PEM) that sign the endpoint's [default: those of the system].
    #[arg(long, value_name = "FILE", requires = "s3")]
    pub ca_file: Option<PathBuf>,
    /// For how long an address leads to an object, in seconds [default: 60].
    #[arg(long, value_name = "N", requires = "s3")]
    pub lease_seconds: Option<u32>,
    /// A directory on a local disk where what was read is kept [default: nothing is kept].
    #[arg(long, value_name = "DIR", requires = "s3", requires = "disk_cache_bytes")]
    pub disk_cache: Option<PathBuf>,
    /// What the objects kept there may take together, like 100GiB; what was used least recently goes.
    #[arg(long, value_name = "SIZE", requires = "disk_cache")]
    pub disk_cache_bytes: Option<ByteSize>,
}

/// Objects to be imported.
#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    /// What, like data/train; the bucket must be that of a pool.
    #[arg(value_name = "BUCKET[/PREFIX]", value_parser = parse_bucket)]
    pub from: Bucket,
    /// Where it appears: a directory that is empty, or not there yet.
    #[arg(value_name = "TENANT:/PATH", value_parser = parse_tenant_path)]
    pub to: TenantPath,
    /// List directories when somebody first looks into them, and not now.
    #[arg(long)]
    pub lazy: bool,
    /// The pool, where several have this bucket.
    #[arg(long)]
    pub pool: Option<String>,
    /// Owner of what appears [default: the owner of the tenant's root directory].
    #[arg(long)]
    pub uid: Option<u32>,
    /// Group of what appears [default: that of the tenant's root directory].
    #[arg(long)]
    pub gid: Option<u32>,
    /// Permission bits of files, in octal; who may read a directory may search it, besides.
    #[arg(long, default_value = "644", value_parser = parse_mode)]
    pub mode: u32,
}

/// What to do with shares.
#[derive(Debug, Subcommand)]
pub(super) enum ShareCommand {
    /// Show a file or directory of one tenant to another.
    #[command(group(ArgGroup::new("rights").required(true).args(["ro", "rw"])))]
    Grant {
        /// What, like alpha:/data.
        #[arg(value_name = "FROM:/PATH", value_parser = parse_tenant_path)]
        from: TenantPath,
        /// To whom, and optionally where it appears there, like beta or beta:/in/data.
        #[arg(value_name = "TO[:/PATH]", value_parser = parse_receiver)]
        to: Receiver,
        /// To be read only.
        #[arg(long)]
        ro: bool,
        /// To be read and changed.
        #[arg(long)]
        rw: bool,
        /// When it ends: a time from now like 1h, or a time like 2031-05-07T12:00:00Z.
        #[arg(long, value_name = "WHEN", value_parser = parse_expiry)]
        expires: Option<Expiry>,
        /// For how long an address leads to an object of it, in seconds [default: as the pool says].
        #[arg(long, value_name = "N")]
        lease_seconds: Option<u32>,
        /// Its name [default: made from what is shared].
        #[arg(long)]
        name: Option<String>,
    },
    /// Take a share back.
    Revoke {
        /// Its name, or what is shared like alpha:/data.
        #[arg(value_name = "NAME|FROM:/PATH")]
        what: String,
        /// Only from this tenant.
        #[arg(value_name = "TO")]
        to: Option<String>,
        /// Replace every process that may still hold descriptors of it.
        #[arg(long)]
        hard: bool,
    },
    /// Remove a share that another tenant has granted from one's own tree.
    Drop {
        /// Where it is, like beta:/shares/alpha/data.
        #[arg(value_name = "TENANT:/PATH", value_parser = parse_tenant_path)]
        at: TenantPath,
    },
    /// List shares.
    List {
        /// Only those from or to this tenant.
        #[arg(long)]
        tenant: Option<String>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        let words = std::iter::once("vmdsctl").chain(line.split(' '));
        Arguments::try_parse_from(words).map(|arguments| arguments.command)
    }

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn shares_are_typed_as_they_are_meant() {
        let Ok(Command::Share(ShareCommand::Grant { from, to, ro, rw, expires, .. })) =
            parse("share grant a:/d/e b --ro --expires 1h")
        else {
            panic!()
        };
        assert_eq!((from.tenant.as_str(), from.path.as_str()), ("a", "/d/e"));
        assert_eq!(to, Receiver { tenant: "b".to_owned(), path: None });
        assert_eq!((ro, rw, expires), (true, false, Some(Expiry::In(Duration::from_secs(3600)))));
        let Ok(Command::Share(ShareCommand::Grant { to, expires, .. })) =
            parse("share grant a:/d b:/in/d --rw --expires 2031-05-07T12:00:00Z")
        else {
            panic!()
        };
        assert_eq!(to.path.as_deref(), Some("/in/d"));
        assert!(matches!(expires, Some(Expiry::At(_))));
    }

    #[test]
    fn upgrades_revocations_and_drops() {
        for (line, expected) in
            [("tenant upgrade a", (Some("a"), false)), ("tenant upgrade --all", (None, true))]
        {
            let Ok(Command::Tenant(TenantCommand::Upgrade { name, all })) = parse(line) else {
                panic!("{line}")
            };
            assert_eq!((name.as_deref(), all), expected);
        }
        for (line, expected) in [("share revoke s", false), ("share revoke a:/d b --hard", true)] {
            let Ok(Command::Share(ShareCommand::Revoke { hard, .. })) = parse(line) else { panic!("{line}") };
            assert_eq!(hard, expected);
        }
        let Ok(Command::Share(ShareCommand::Drop { at })) = parse("share drop b:/shares/a/d") else {
            panic!()
        };
        assert_eq!((at.tenant.as_str(), at.path.as_str()), ("b", "/shares/a/d"));
    }

    #[test]
    fn a_pool_is_a_directory_or_a_bucket() {
        let add = |line: &str| match parse(line) {
            Ok(Command::Pool(PoolCommand::Add(arguments))) => *arguments,
            _ => panic!("{line}"),
        };
        let posix = add("pool add p --posix /p --host h");
        assert_eq!((posix.posix, posix.host.as_deref()), (Some(PathBuf::from("/p")), Some("h")));
        let s3 = add("pool add p --s3 data/team/vmds --endpoint http://h:9000 --path-style \
                      --credentials file:/k#ops --staging /s");
        let bucket = s3.s3.unwrap();
        assert_eq!((bucket.name.as_str(), bucket.prefix.as_str()), ("data", "team/vmds"));
        let file = CredentialsSpec::File { path: "/k".into(), profile: Some("ops".to_owned()) };
        assert_eq!((s3.credentials, s3.path_style, s3.staging), (Some(file), true, Some("/s".into())));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "share grant a:/d b",
            "share grant a:/d b --ro --rw",
            "share grant a b --ro",
            "share grant a:d b --ro",
            "share grant a:/d b/c --ro",
            "share grant a:/d b --ro --expires soon",
            "tenant create a --pool p --sla-class shared",
            "tenant create a --sla-class best",
            "tenant create a --quota-bytes lots",
            "tenant upgrade",
            "tenant upgrade a --all",
            "share drop b",
            "share drop b:d",
            "pool add p",
            "pool add p --posix /p --s3 data --credentials env",
            "pool add p --posix /p --region r",
            "pool add p --s3 data",
            "pool add p --s3 data --credentials AKIA:secret",
            "pool add p --s3 data --credentials env --disk-cache /c",
            "pool add p --s3 data --credentials env --disk-cache-bytes 1GiB",
            "pool add p --posix /p --disk-cache /c --disk-cache-bytes 1GiB",
            "pool add p --s3 /data --credentials env",
            "pool check",
            "pool check p --grace soon",
            "import data",
            "import data a",
            "import data/x a:/x --mode 888",
            "import data/x a:/x --mode 4755",
            "get secrets",
            "status --timeout soon",
            "explode",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn settings_can_stand_anywhere() {
        let arguments =
            Arguments::try_parse_from(["vmdsctl", "tenant", "list", "-o", "json", "--run-dir", "/r"])
                .unwrap();
        assert_eq!((arguments.output, arguments.run_dir), (Format::Json, PathBuf::from("/r")));
        let arguments = Arguments::try_parse_from(["vmdsctl", "--timeout", "5", "status"]).unwrap();
        assert_eq!(arguments.timeout, Duration::from_secs(5));
    }
}
