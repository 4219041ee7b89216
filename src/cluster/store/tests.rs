//! One suite of contracts for every store, and tests of each store by itself.

mod contract;
mod copies;
mod copy;
mod keys;
mod memory;
mod model;
#[cfg(feature = "real-nats")]
mod nats;
#[cfg(feature = "real-nats")]
mod opening;
#[cfg(feature = "real-nats")]
mod outages;
#[cfg(feature = "real-nats")]
mod proxy;
#[cfg(feature = "real-nats")]
mod servers;
mod world;

/// Runs each contract as a test of its own: on the store in memory, and, with the feature
/// `real-nats`, on a real NATS server.
macro_rules! contracts {
    ($($name:ident)*) => {
        mod in_memory {
            $(
                #[tokio::test(start_paused = true)]
                async fn $name() {
                    super::contract::$name(&super::world::InMemory::new()).await;
                }
            )*
        }

        #[cfg(feature = "real-nats")]
        mod on_one_server {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let servers = super::servers::Servers::one().await;
                    super::contract::$name(&super::nats::OnNats::new(&servers, "one").await).await;
                }
            )*
        }

        #[cfg(feature = "real-nats")]
        mod on_three_servers {
            /// One cluster of servers for all, for its start takes seconds; each has a bucket.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn every_contract_holds() {
                let servers = super::servers::Servers::three().await;
                $(
                    let world = super::nats::OnNats::new(&servers, stringify!($name)).await;
                    super::contract::$name(&world).await;
                )*
            }
        }
    };
}

contracts! {
    create_has_one_winner_of_many
    compare_and_set_has_one_winner_of_many
    compare_and_delete_has_one_winner_of_many
    stale_revision_conflicts_and_changes_nothing
    absent_key_conflicts
    deleted_key_can_be_created_again
    entry_has_the_stores_revision_and_time
    listing_holds_the_keys_under_its_prefix_alone
    any_name_is_a_key
    too_long_value_is_malformed
    lost_ack_is_ambiguous_and_applied
    lost_write_is_ambiguous_and_not_applied
    lost_answer_makes_a_read_unavailable
    watch_tells_entries_then_synced_then_changes
    watch_of_nothing_is_synced
    watch_tells_changes_in_their_order
    watch_after_an_outage_tells_the_changes_meanwhile
    watch_syncs_again_and_again
    emptied_bucket_is_told_as_deletions
    recreated_bucket_is_told_as_reset
    revision_of_an_earlier_bucket_conflicts
    entry_expires_and_watchers_are_told
    rewritten_entry_lives_on
    every_copy_equals_the_bucket_in_the_end
}
