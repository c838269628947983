//! Promise: the controller may be killed at any moment and started again; programs at work wait, and notice nothing
//! else.

use std::cell::RefCell;
use std::path::Path;

use tests::{Loads, Pauses, Process, Pulse, Random, World, full};

use crate::crash_vmds::{
    PAUSE_MAX, disturb, seed, shared, start_bytes, start_listings, start_names, start_shared,
};
use crate::help::world;

/// Starts loads, does something to the controller under them, and looks whether anybody noticed.
fn crash_under(
    (killed, what): (&str, &str),
    world: World,
    mount: &Path,
    start: impl FnOnce(&mut Loads, u64),
    crash: impl FnMut(&mut World),
) {
    let seed = seed();
    let world = RefCell::new((world, crash));
    let mut loads = Loads::default();
    start(&mut loads, seed);
    let pulse = Pulse::start(&mut loads, mount.join("pulse"));
    let kills = if full() { 30 } else { 5 };
    let pauses: Pauses = disturb(&loads, &pulse, &mut Random::new(seed), kills, || {
        let (world, crash) = &mut *world.borrow_mut();
        crash(world);
    });
    let operations = loads.finish();
    let (world, _) = world.into_inner();
    world.ctl(&["check"]);
    pauses.print_row(killed, what, operations);
    assert!(pauses.longest() < PAUSE_MAX, "{pauses}");
}

/// Kills the controller and starts it again. The VMDS must live on.
fn crash(world: &mut World, serving: Process) {
    world.crash_controller();
    assert!(serving.is_alive(), "the VMDS outlives the controller:\n{}", world.log());
}

#[test]
fn every_change_of_names_is_made_once_over_kills_of_the_controller() {
    let world = world();
    let mount = world.mounted("alice");
    let vmds = world.vmds();
    let start = |loads: &mut Loads, seed| start_names(loads, &mount, seed);
    crash_under(("controller", "changes of names"), world, &mount, start, |world| crash(world, vmds));
}

#[test]
fn no_byte_no_lock_and_no_transaction_is_lost_over_kills_of_the_controller() {
    let world = world();
    let mount = world.mounted("alice");
    let vmds = world.vmds();
    let start = |loads: &mut Loads, seed| start_bytes(loads, &mount, seed);
    crash_under(("controller", "bytes"), world, &mount, start, |world| crash(world, vmds));
}

#[test]
fn no_byte_no_lock_and_no_transaction_of_a_tenant_with_a_quota_is_lost_over_kills_of_the_controller() {
    let world = world();
    world.tenant_with("metered", &["--quota-bytes", "64GiB"]);
    let mount = world.mount("metered");
    let vmds = world.vmds();
    let start = |loads: &mut Loads, seed| start_bytes(loads, &mount, seed);
    crash_under(("controller", "bytes with a quota"), world, &mount, start, |world| crash(world, vmds));
}

#[test]
fn a_listing_over_kills_of_the_controller_has_every_entry_once() {
    let world = world();
    let mount = world.mounted("alice");
    let vmds = world.vmds();
    let start = |loads: &mut Loads, _| start_listings(loads, &mount);
    crash_under(("controller", "listings"), world, &mount, start, |world| crash(world, vmds));
}

#[test]
fn every_change_through_a_share_is_made_once_over_kills_of_the_controller() {
    let world = world();
    let (owner, grantee) = shared(&world);
    let vmdses = world.vmdses();
    let start = |loads: &mut Loads, seed| start_shared(loads, &owner, &grantee, seed);
    crash_under(("controller", "changes through a share"), world, &grantee, start, |world| {
        vmdses.iter().for_each(|vmds| assert!(vmds.is_alive(), "{}", world.log()));
        crash(world, vmdses[0]);
    });
}

#[test]
fn kills_of_the_controller_and_of_the_vmds_in_turns_cost_no_operation() {
    let world = world();
    let mount = world.mounted("alice");
    let mut serving = world.vmds();
    let mut turn = 0;
    let start = |loads: &mut Loads, seed| start_names(loads, &mount, seed);
    crash_under(("controller and VMDS in turns", "changes of names"), world, &mount, start, |world| {
        turn += 1;
        if turn % 2 == 1 {
            crash(world, serving);
        } else {
            // Taken over by a controller that has not started it.
            serving.kill();
            tests::wait_until("the VMDS has ended", crate::help::SOON, || !serving.is_alive());
            serving = tests::wait_for("there is another VMDS", crate::help::SOON, || {
                world.vmdses().first().copied()
            });
        }
    });
}
